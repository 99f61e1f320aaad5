//! Each rule of a commit as a story.
#![allow(clippy::unwrap_used, clippy::panic)]

mod fixture;
mod guards;
mod ids;
mod in_flight;
mod limits;
mod numbers;
mod reads;
mod unique;
mod work;
mod writes;

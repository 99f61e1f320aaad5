//! The rules of the coordinator, as stories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod deletion;
mod fixture;
mod instances;
mod joining;
mod leaving;
mod limits;
mod offsets;
mod restart;
mod rows;
mod syncing;

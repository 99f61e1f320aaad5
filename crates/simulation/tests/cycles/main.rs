//! The cycle checker on histories made by hand, one for each anomaly, and on random ones, which a
//! search through every order of their transactions judges as well.

#![allow(clippy::unwrap_used, clippy::panic)]

mod bad;
mod good;
mod history;
mod malformed;
mod random;

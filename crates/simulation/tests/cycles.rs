//! The cycle checker on histories made by hand, one for each anomaly, and on random ones, which a
//! search through every order of their transactions judges as well.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "cycles/bad.rs"]
mod bad;
#[path = "cycles/good.rs"]
mod good;
#[path = "cycles/history.rs"]
mod history;
#[path = "cycles/malformed.rs"]
mod malformed;
#[path = "cycles/random.rs"]
mod random;

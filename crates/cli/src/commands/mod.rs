//! One file per command.

pub mod audit;
pub mod backup;
pub mod check;
pub mod cluster;
pub mod commit;
pub mod config;
pub mod delete;
#[cfg(feature = "demo")]
pub mod demo;
pub mod export;
pub mod get;
pub mod put;
pub mod restore;
pub mod scan;
pub mod serve;
pub mod sinks;
pub mod status;
pub mod tables;
pub mod tail;

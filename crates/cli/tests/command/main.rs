//! The command `onelog` as people use it: the real binary, real processes, real files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail by them

mod audit;
mod audit_pairs;
mod configured;
mod data;
mod deleting_tables;
mod demo;
mod demo_stores;
mod deployed;
mod examples;
mod five_stores;
mod folders;
mod full_disk;
mod import;
mod import_formats;
mod import_once;
mod import_stores;
mod import_values;
mod packages;
mod readme;
mod records;
mod server;
mod serving;
mod sinks;

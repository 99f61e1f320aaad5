//! The command `onelog` as people use it: the real binary, real processes, real files.

mod data;
mod demo;
mod folders;
mod import;
mod packages;
mod server;
mod serving;

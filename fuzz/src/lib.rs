//! What the fuzz targets share. Each target is a file in `bin`; `fuzz/run` builds and runs them.

pub mod bodies;
pub mod programs;
pub mod seeds;
pub mod world;

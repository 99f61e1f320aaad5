//! The HTTP door: JSON transactions, reads, the log as a stream.

mod parse;
mod text;

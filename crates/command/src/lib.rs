//! What the commands of several crates share: the flags that all of them take, why one ended without
//! success, the files and definitions named on the command line, and sizes and times as people write
//! them.

mod context;
mod definition_file;
mod error;
mod input;
pub mod toml_json;
mod toml_nesting;
pub mod units;

pub use context::{Context, NoServer, timeout};
pub use definition_file::DefinitionFile;
pub use error::CommandError;
pub use input::{is_stdin, read_whole};

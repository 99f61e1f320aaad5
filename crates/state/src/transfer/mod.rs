//! A state on its way to another node: the last checkpoint as a head and a stream of chunks, sorted,
//! each of bounded size. The stream can be taken up again behind any chunk, on any node that has the
//! same checkpoint: the bytes of a cursor say what was there last, not where it lies in a file.
//!
//! ```text
//! sender                          receiver
//! State::export                   Import::begin(head)       state.redb.new beside the live file
//!   head, chunk(cursor)   →         wanted, put(chunk) *
//!                                   finish → Imported
//!                                 State::install(imported)  the file gets its name, the state goes on
//! ```

mod chunk;
mod export;
mod head;
mod import;
mod install;

pub use chunk::{CHUNK_BYTES, CHUNK_BYTES_MAX, CURSOR_BYTES_MAX};
pub(crate) use chunk::{Chunk, ChunkWriter, Content, Cursor};
pub use export::{Export, ExportError};
pub use head::{HEAD_BYTES_MAX, Head};
pub use import::{Import, ImportError, Imported};
pub use install::InstallError;

/// Bytes of a transfer are not as a node sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They have a format that this version does not know.
    #[error(
        "they have format {format}, and this version reads formats up to {known}: the sender is newer, update this node"
    )]
    Newer { format: u8, known: u8 },
    /// They are cut off, damaged, or say something that cannot be.
    #[error("{0}")]
    Bytes(&'static str),
}

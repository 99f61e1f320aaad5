//! Arbitrary bytes as parts of a transfer: what is accepted has exactly one form.

use crate::transfer::{Chunk, ChunkWriter, Content, Cursor, Head, Malformed};

/// Panics where a head that was accepted is written otherwise.
///
/// # Errors
/// When the bytes are no head.
pub fn check_head(bytes: &[u8]) -> Result<(), Malformed> {
    assert_eq!(Head::decode(bytes)?.encode(), bytes);
    Ok(())
}

/// Panics where a cursor that was accepted is written otherwise.
///
/// # Errors
/// When the bytes are no cursor.
pub fn check_cursor(bytes: &[u8]) -> Result<(), Malformed> {
    assert_eq!(Cursor::decode(bytes)?.encode(), bytes);
    Ok(())
}

/// Reads a chunk as its receiver does at first.
///
/// # Errors
/// When the bytes are no chunk.
pub fn read_chunk(bytes: &[u8]) -> Result<(), Malformed> {
    Chunk::decode(bytes).map(drop)
}

/// Panics where a chunk that was accepted is written otherwise.
///
/// # Errors
/// When the bytes are no chunk.
pub fn check_chunk(bytes: &[u8]) -> Result<(), Malformed> {
    let chunk = Chunk::decode(bytes)?;
    let mut again = ChunkWriter::begin(chunk.index, chunk.from);
    match chunk.content {
        Content::Rows(mut rows) => {
            while let Some((key, value)) = rows.next()? {
                again.row(key, value);
            }
        }
        Content::Ids(packed) => again.ids(packed),
    }
    assert_eq!(again.count(), chunk.count);
    assert_eq!(again.finish(), bytes);
    Ok(())
}

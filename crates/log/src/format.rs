//! Format numbers, in the same place in every file and in every version of onelog.
//!
//! ```text
//! 0 magic u32 | 4 format u8 | what follows is the format's own affair, its checksum too
//! ```
//! The number is judged before any checksum: a version that knows only lower ones cannot know how a
//! newer one makes its checksums, and must not call the file damaged. A damaged number is
//! distinguished: with the known one in its place the checksum is right.
//!
//! The hard state speaks for the whole folder: a version that changes the format of any file MUST
//! raise its number too, before it writes anything else.

use crate::frame::word;

/// A file has a format that this version does not know. Nothing was read from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "made by a newer version of onelog: the file {file} has format {format}, and this version reads formats up to {known}; nothing was changed; start a version that knows it, or restore a backup that an older version made"
)]
pub struct NewerFormat {
    pub file: String,
    pub format: u8,
    /// The highest format that this version reads.
    pub known: u8,
}

/// Where the number is.
const FORMAT_AT: usize = 4;

/// What this version knows about a kind of file.
#[derive(Clone, Copy, Debug)]
pub struct KnownFormat {
    pub magic: u32,
    pub format: u8,
    /// Where the known format has its CRC-32C, which covers all bytes before it.
    pub crc_at: usize,
}

impl KnownFormat {
    /// A header block that says nothing but the format.
    #[must_use]
    pub fn header(&self, bytes: usize) -> Vec<u8> {
        let mut block = vec![0; bytes];
        block[..FORMAT_AT].copy_from_slice(&self.magic.to_le_bytes());
        block[FORMAT_AT] = self.format;
        let crc = crc32c::crc32c(&block[..self.crc_at]);
        block[self.crc_at..self.crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Refuses a block of a newer format. Whether one of the known format is whole is not decided
    /// here, and what is no such block passes.
    ///
    /// # Errors
    /// When the number is above the known one and was not damaged.
    pub fn check(&self, file: &str, block: &[u8]) -> Result<(), NewerFormat> {
        if block.len() <= FORMAT_AT || word(block, 0) != self.magic {
            return Ok(());
        }
        let format = block[FORMAT_AT];
        if format <= self.format || self.is_damaged_number(block) {
            return Ok(());
        }
        Err(NewerFormat {
            file: file.to_owned(),
            format,
            known: self.format,
        })
    }

    fn is_damaged_number(&self, block: &[u8]) -> bool {
        if block.len() < self.crc_at + 4 {
            return false;
        }
        let mut known = block[..self.crc_at].to_vec();
        known[FORMAT_AT] = self.format;
        crc32c::crc32c(&known) == word(block, self.crc_at)
    }
}

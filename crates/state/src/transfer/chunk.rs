//! A chunk of a transfer, and the cursor that says where one begins.
//!
//! ```text
//! cursor := 1 | key        the rows behind this one: table u32 BE | key; without it, from the first on
//!         | 2 | left u64   so many of the remembered ids, counted from the newest, are still to come
//! chunk
//!  0 magic u32 "OLSC" | 4 format u8 = 1 | 5 zero u8 | 6 from_len u16
//!  8 index u64: of the checkpoint | 16 count u32 | 20 body_len u32
//! 24 from: the cursor of the chunk [from_len] | body [body_len] | CRC-32C of all before, u32
//! body := row *            key_len varint | key | value_len varint | value, both as they are stored
//!       | id *             as they are stored
//! ```

use onelog_record::{Index, KEY_BYTES_MAX, VALUE_BYTES_MAX, read_varint, write_varint};

use super::Malformed;
use super::head::{WordsAt, seal, unseal};
use crate::ids::ID_BYTES;
use crate::key::TABLE_PREFIX_BYTES;

const MAGIC: &[u8] = b"OLSC";
const FORMAT: u8 = 1;
const FIXED_BYTES: usize = 24;
const FROM_LEN_AT: usize = 6;
const COUNT_AT: usize = 16;
const BODY_LEN_AT: usize = 20;

const OF_ROWS: u8 = 1;
const OF_IDS: u8 = 2;
/// The most bytes of a cursor.
pub const CURSOR_BYTES_MAX: usize = 1 + TABLE_PREFIX_BYTES + KEY_BYTES_MAX;
/// How large a chunk becomes. Only a single row may make it larger.
pub const CHUNK_BYTES: usize = 1 << 20;
/// The most bytes of a chunk: that of one row with the longest key and value, and its cursor.
pub const CHUNK_BYTES_MAX: usize = CHUNK_BYTES + VALUE_BYTES_MAX;

/// Where a chunk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cursor<'c> {
    /// With the rows behind this one; with the first when it is empty.
    Rows(&'c [u8]),
    /// With the remembered ids, of which so many are left.
    Ids(u64),
}

impl<'c> Cursor<'c> {
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Rows(key) => [&[OF_ROWS], key].concat(),
            Self::Ids(left) => [&[OF_IDS][..], &left.to_le_bytes()].concat(),
        }
    }

    pub(crate) fn decode(bytes: &'c [u8]) -> Result<Self, Malformed> {
        match bytes {
            _ if bytes.len() > CURSOR_BYTES_MAX => {
                Err(Malformed::Bytes("they are longer than a cursor can be"))
            }
            [OF_ROWS] => Ok(Self::Rows(&[])),
            [OF_ROWS, key @ ..] if key.len() >= TABLE_PREFIX_BYTES => Ok(Self::Rows(key)),
            [OF_IDS, left @ ..] if left.len() == 8 && left.u64_at(0) > 0 => {
                Ok(Self::Ids(left.u64_at(0)))
            }
            _ => Err(Malformed::Bytes("they are no cursor")),
        }
    }
}

/// What a chunk holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'c> {
    Rows(Rows<'c>),
    /// Packed ids, a whole number of them.
    Ids(&'c [u8]),
}

/// A chunk whose frame is whole. What its rows say is for the reader to judge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk<'c> {
    pub(crate) index: Index,
    pub(crate) from: Cursor<'c>,
    /// How many rows or ids there are, at least one.
    pub(crate) count: u32,
    pub(crate) content: Content<'c>,
}

impl<'c> Chunk<'c> {
    pub(crate) fn decode(bytes: &'c [u8]) -> Result<Self, Malformed> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(Malformed::Bytes("they are longer than a chunk can be"));
        }
        let chunk = unseal(bytes, MAGIC, FORMAT, FIXED_BYTES)?;
        let from_len = u16::from_le_bytes(chunk.bytes_at(FROM_LEN_AT));
        let body_len = chunk.u32_at(BODY_LEN_AT) as usize;
        let rest = &chunk[FIXED_BYTES..];
        if chunk[5] != 0 || rest.len() != usize::from(from_len) + body_len {
            return Err(Malformed::Bytes("their fields contradict each other"));
        }
        let (from, body) = rest.split_at(usize::from(from_len));
        let from = Cursor::decode(from)?;
        let count = chunk.u32_at(COUNT_AT);
        let content = match from {
            Cursor::Rows(_) => Content::Rows(Rows { body, at: 0 }),
            Cursor::Ids(_) => Content::Ids(body),
        };
        let is_counted = match content {
            Content::Rows(mut rows) => {
                let mut found = 0_u64;
                while rows.next()?.is_some() {
                    found += 1;
                }
                found == u64::from(count)
            }
            Content::Ids(ids) => ids.len() as u64 == u64::from(count) * ID_BYTES as u64,
        };
        if count == 0 || !is_counted {
            return Err(Malformed::Bytes("they do not hold as many as they say"));
        }
        Ok(Self {
            index: Index(chunk.u64_at(8)),
            from,
            count,
            content,
        })
    }
}

/// Key and value as the B-tree holds them.
pub(crate) type StoredRow<'r> = (&'r [u8], &'r [u8]);

/// The rows of a chunk, one after the other: key and value as they are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'c> {
    body: &'c [u8],
    at: usize,
}

impl<'c> Rows<'c> {
    pub(crate) fn next(&mut self) -> Result<Option<StoredRow<'c>>, Malformed> {
        if self.at == self.body.len() {
            return Ok(None);
        }
        let row = self.piece().zip(self.piece());
        row.map(Some)
            .ok_or(Malformed::Bytes("a row in them is cut off"))
    }

    fn piece(&mut self) -> Option<&'c [u8]> {
        let len = usize::try_from(read_varint(self.body, &mut self.at)?).ok()?;
        let piece = self.body.get(self.at..)?.get(..len)?;
        self.at += len;
        Some(piece)
    }
}

/// Collects the rows or ids of one chunk.
#[derive(Debug)]
pub(crate) struct ChunkWriter {
    out: Vec<u8>,
    body_at: usize,
    count: u32,
}

impl ChunkWriter {
    pub(crate) fn begin(index: Index, from: Cursor<'_>) -> Self {
        let from = from.encode();
        let mut out = Vec::with_capacity(CHUNK_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[FORMAT, 0]);
        out.extend_from_slice(&(from.len() as u16).to_le_bytes());
        out.extend_from_slice(&index.0.to_le_bytes());
        out.resize(FIXED_BYTES, 0);
        out.extend_from_slice(&from);
        Self {
            body_at: out.len(),
            out,
            count: 0,
        }
    }

    /// Whether so many bytes more still belong into this chunk. The first row or id always does.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        // A row's lengths take no more than ten bytes each, the checksum four.
        self.count == 0 || self.out.len() + bytes + 24 <= CHUNK_BYTES
    }

    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) {
        for piece in [key, value] {
            write_varint(&mut self.out, piece.len() as u64);
            self.out.extend_from_slice(piece);
        }
        self.count += 1;
    }

    pub(crate) fn ids(&mut self, packed: &[u8]) {
        self.out.extend_from_slice(packed);
        self.count += (packed.len() / ID_BYTES) as u32;
    }

    /// How many rows or ids there are.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let body_len = (self.out.len() - self.body_at) as u32;
        self.out[COUNT_AT..COUNT_AT + 4].copy_from_slice(&self.count.to_le_bytes());
        self.out[BODY_LEN_AT..BODY_LEN_AT + 4].copy_from_slice(&body_len.to_le_bytes());
        seal(&mut self.out);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        seal(&mut bytes);
        bytes
    }

    #[test]
    fn a_chunk_of_rows_has_these_bytes_and_is_read_back() {
        let mut writer = ChunkWriter::begin(Index(7), Cursor::Rows(b"\0\0\x04\0k"));
        writer.row(b"\0\0\x04\0l", b"\x05\0\0\0\0\0\0\0v");
        let bytes = writer.finish();
        let mut expected = b"OLSC\x01\0\x06\0\x07\0\0\0\0\0\0\0".to_vec();
        expected.extend_from_slice(b"\x01\0\0\0\x10\0\0\0");
        expected.extend_from_slice(b"\x01\0\0\x04\0k");
        expected.extend_from_slice(b"\x05\0\0\x04\0l\x09\x05\0\0\0\0\0\0\0v");
        assert_eq!(bytes, sealed(expected));
        let chunk = Chunk::decode(&bytes).unwrap();
        assert_eq!((chunk.index, chunk.count), (Index(7), 1));
        assert_eq!(chunk.from, Cursor::Rows(b"\0\0\x04\0k"));
        let Content::Rows(mut rows) = chunk.content else {
            panic!("{chunk:?}");
        };
        let row = rows.next().unwrap().unwrap();
        assert_eq!(row, (&b"\0\0\x04\0l"[..], &b"\x05\0\0\0\0\0\0\0v"[..]));
        assert_eq!(rows.next(), Ok(None));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(Chunk::decode(&other).is_err(), "byte {at}");
            assert!(Chunk::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_chunk_of_ids_has_these_bytes_and_is_read_back() {
        let mut writer = ChunkWriter::begin(Index(7), Cursor::Ids(300));
        writer.ids(&[9; 2 * ID_BYTES]);
        let bytes = writer.finish();
        let mut expected = b"OLSC\x01\0\x09\0\x07\0\0\0\0\0\0\0".to_vec();
        expected.extend_from_slice(b"\x02\0\0\0\x48\0\0\0");
        expected.extend_from_slice(b"\x02\x2c\x01\0\0\0\0\0\0");
        expected.extend_from_slice(&[9; 2 * ID_BYTES]);
        assert_eq!(bytes, sealed(expected));
        let chunk = Chunk::decode(&bytes).unwrap();
        assert_eq!((chunk.from, chunk.count), (Cursor::Ids(300), 2));
        assert!(matches!(chunk.content, Content::Ids(ids) if ids == [9; 72]));
    }

    #[test]
    fn what_no_node_sends_is_refused() {
        let with = |at: usize, byte: u8| {
            let mut writer = ChunkWriter::begin(Index(7), Cursor::Rows(b""));
            writer.row(b"\0\0\x04\0l", b"\x05\0\0\0\0\0\0\0v");
            let mut bytes = writer.finish();
            bytes.truncate(bytes.len() - 4);
            bytes[at] = byte;
            Chunk::decode(&sealed(bytes)).map(|chunk| chunk.count)
        };
        assert_eq!(with(16, 1), Ok(1));
        assert_eq!(
            with(4, 2),
            Err(Malformed::Newer {
                format: 2,
                known: 1
            })
        );
        // The format, the zero, the cursor's length, the count, the body's length, the cursor's
        // kind, a key's length.
        for (at, byte) in [
            (4, 0),
            (5, 1),
            (6, 2),
            (16, 2),
            (16, 0),
            (20, 9),
            (24, 3),
            (25, 6),
        ] {
            assert!(with(at, byte).is_err(), "{at}");
        }
        let empty = ChunkWriter::begin(Index(7), Cursor::Rows(b"")).finish();
        assert!(Chunk::decode(&empty).is_err());
        for cursor in [
            &b""[..],
            b"\0",
            b"\x01abc",
            b"\x02",
            b"\x02\0\0\0\0\0\0\0\0",
            b"\x03",
        ] {
            assert!(Cursor::decode(cursor).is_err(), "{cursor:?}");
        }
    }
}

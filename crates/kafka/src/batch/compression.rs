//! The compressions of record batches. Unpacking stops at a bound; what a frame claims is never
//! trusted with memory.

use std::io::{self, Read, Write as _};

use super::BatchError;

/// What Java's snappy library writes in front: its name, then a version and the oldest that reads it.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// How much one snappy block of Java's library has.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// The largest window of zstd that is unpacked, 8 MiB: what its levels up to 19 use.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const ZSTD_LEVEL: i32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Compression {
    pub const fn of(bits: i16) -> Option<Self> {
        match bits {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Unpacks at most `max` bytes.
    pub fn unpack(self, packed: &[u8], max: usize) -> Result<Vec<u8>, BatchError> {
        let unpacked = match self {
            Self::None => Ok(packed.to_vec()),
            Self::Gzip => read_within(flate2::read::MultiGzDecoder::new(packed), max),
            Self::Snappy => return unpack_snappy(packed, max),
            Self::Lz4 => read_within(lz4_flex::frame::FrameDecoder::new(packed), max),
            Self::Zstd => unpack_zstd(packed, max),
        };
        let unpacked = unpacked.map_err(|cause| BatchError::Unpack(cause.to_string()))?;
        match unpacked.len() > max {
            true => Err(BatchError::TooLarge { max }),
            false => Ok(unpacked),
        }
    }

    pub fn pack(self, raw: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(raw.to_vec()),
            Self::Gzip => {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(raw)?;
                encoder.finish()
            }
            Self::Snappy => pack_snappy(raw),
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(raw)?;
                encoder.finish().map_err(io::Error::other)
            }
            Self::Zstd => zstd::stream::encode_all(raw, ZSTD_LEVEL),
        }
    }
}

/// Reads one byte more than allowed at most, which shows that there is more.
fn read_within(from: impl Read, max: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    from.take(max as u64 + 1).read_to_end(&mut out)?;
    Ok(out)
}

fn unpack_zstd(packed: &[u8], max: usize) -> io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    read_within(decoder, max)
}

fn unpack_snappy(packed: &[u8], max: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    if !packed.starts_with(&XERIAL_MAGIC) {
        snappy_block(packed, max, &mut out)?;
        return Ok(out);
    }
    let mut left = packed.get(XERIAL_HEADER_BYTES..).ok_or(BatchError::Short)?;
    while !left.is_empty() {
        let (size, rest) = left.split_first_chunk().ok_or(BatchError::Short)?;
        let size = u32::from_be_bytes(*size) as usize;
        let (block, rest) = rest.split_at_checked(size).ok_or(BatchError::Short)?;
        snappy_block(block, max, &mut out)?;
        left = rest;
    }
    Ok(out)
}

fn snappy_block(block: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let failed = |cause: snap::Error| BatchError::Unpack(cause.to_string());
    let from = out.len();
    let size = snap::raw::decompress_len(block).map_err(failed)?;
    if size > max - from {
        return Err(BatchError::TooLarge { max });
    }
    out.resize(from + size, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut out[from..])
        .map_err(failed)?;
    out.truncate(from + written);
    Ok(())
}

fn pack_snappy(raw: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend_from_slice(&1_u32.to_be_bytes());
    out.extend_from_slice(&1_u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in raw.chunks(XERIAL_BLOCK_BYTES) {
        let packed = encoder.compress_vec(block).map_err(io::Error::other)?;
        out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}

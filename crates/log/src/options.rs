//! What can be chosen about a log, and the bounds of each choice.

use crate::segment::SEGMENT_HEADER_BYTES;

/// The smallest `segment_bytes`: the header block and as much again.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 2 * SEGMENT_HEADER_BYTES;
/// The largest `segment_bytes`.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 4 << 30;

/// What can be chosen about a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The bytes of a segment file, written ahead. A frame that is larger gets a segment of its own
    /// size. From 8 KiB to 4 GiB; default 64 MiB.
    pub segment_bytes: u64,
    /// How many bytes of frames lie between two points of the sparse index. Default 64 KiB.
    pub index_every_bytes: u64,
    /// The most bytes staged and not yet durable. One group is always taken when nothing is in
    /// flight. Default 64 MiB.
    pub in_flight_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            index_every_bytes: 64 << 10,
            in_flight_bytes_max: 64 << 20,
        }
    }
}

impl LogOptions {
    /// What is wrong with the choice, for people.
    pub(crate) fn fault(&self) -> Option<String> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Some(format!(
                "segment_bytes is {}, it must lie between {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX}",
                self.segment_bytes
            ));
        }
        (!self.segment_bytes.is_multiple_of(SEGMENT_HEADER_BYTES)).then(|| {
            format!(
                "segment_bytes is {}, it must be a multiple of {SEGMENT_HEADER_BYTES}",
                self.segment_bytes
            )
        })
    }
}

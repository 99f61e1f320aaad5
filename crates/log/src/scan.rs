//! Reading frames one after the other out of a file, and looking behind damage for evidence.

use std::io;

use onelog_record::{Index, Position, Term};

use crate::disk::DiskFile;
use crate::frame::{
    self, FRAME_ALIGNMENT, FRAME_HEADER_BYTES, Frame, FrameFault, FrameHead, MAGIC, Salt,
    SharedHead,
};
use crate::planted::{self, Bug};
use crate::restart::Place;
use crate::segment::Extent;

/// How much is read at once when a file is read through.
pub(crate) const SCAN_BYTES: usize = 1 << 20;

/// Why no frame was read.
#[derive(Debug)]
pub(crate) enum Stop {
    Fault(FrameFault),
    Io(io::Error),
}

impl From<FrameFault> for Stop {
    fn from(fault: FrameFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What the next frame must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expect {
    pub index: Index,
    pub offset: Position,
    pub previous: u32,
    pub term: Term,
}

impl Expect {
    pub const fn after(extent: &Extent) -> Self {
        Self {
            index: extent.next_index,
            offset: extent.next_offset,
            previous: extent.crc,
            term: extent.term,
        }
    }

    /// What must be behind an entry.
    pub const fn behind(place: &Place) -> Self {
        Self {
            index: place.index.next(),
            offset: place.end,
            previous: place.checksum,
            term: place.term,
        }
    }

    pub const fn advance(&mut self, head: &SharedHead) {
        self.index = self.index.next();
        self.offset = head.header.end();
        self.previous = head.frame_crc;
        self.term = head.term;
    }

    pub fn check(&self, head: &SharedHead) -> Result<(), FrameFault> {
        if head.index != self.index {
            return Err(FrameFault::Index {
                expected: self.index,
                found: head.index,
            });
        }
        if head.previous != self.previous {
            return Err(FrameFault::Chain {
                expected: self.previous,
                found: head.previous,
            });
        }
        let offset = head.header.base_offset.0;
        if offset != self.offset.0
            || offset
                .checked_add(head.header.record_count.into())
                .is_none()
        {
            return Err(FrameFault::Offset {
                expected: self.offset.0,
                found: offset,
            });
        }
        if head.term < self.term {
            return Err(FrameFault::Term {
                before: self.term,
                found: head.term,
            });
        }
        Ok(())
    }
}

/// A window over a file, read ahead by a fixed amount.
#[derive(Debug)]
pub(crate) struct FrameReader<'a> {
    file: &'a dyn DiskFile,
    salt: Salt,
    read_ahead: usize,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> FrameReader<'a> {
    pub const fn new(file: &'a dyn DiskFile, salt: Salt, read_ahead: usize) -> Self {
        Self {
            file,
            salt,
            read_ahead,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// The bytes at `at`: `len` of them, fewer where the file ends.
    fn bytes(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let inside =
            at >= self.window_at && at + len as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            self.window.resize(len.max(self.read_ahead), 0);
            let count = self.file.read_at(at, &mut self.window)?;
            self.window.truncate(count);
            self.window_at = at;
        }
        let from = (at - self.window_at) as usize;
        Ok(&self.window[from..(from + len).min(self.window.len())])
    }

    /// The header of the frame at `at`, whatever frame it is.
    fn head(&mut self, at: u64) -> Result<FrameHead, Stop> {
        let salt = self.salt;
        Ok(FrameHead::decode(
            self.bytes(at, FRAME_HEADER_BYTES)?,
            salt,
        )?)
    }

    /// The frame at `at`, which must be the one that `expect` says.
    pub fn next(&mut self, at: u64, expect: &Expect) -> Result<Frame<'_>, Stop> {
        let head = self.head(at)?;
        expect.check(&head)?;
        self.whole(at, &head)
    }

    fn whole(&mut self, at: u64, head: &FrameHead) -> Result<Frame<'_>, Stop> {
        let salt = self.salt;
        Ok(frame::decode(self.bytes(at, head.frame_len())?, salt)?)
    }
}

/// Reads the frames of a file on from `extent`, up to the first that is not the next one or not
/// below `below`. Answers the highest watermark met, and why the reading ended.
pub(crate) fn scan(
    file: &dyn DiskFile,
    salt: Salt,
    extent: &mut Extent,
    index_every_bytes: u64,
    below: Index,
    visit: &mut dyn FnMut(&Frame<'_>),
) -> io::Result<(Index, FrameFault)> {
    let mut reader = FrameReader::new(file, salt, SCAN_BYTES);
    let mut durable = Index::ZERO;
    loop {
        if extent.next_index >= below {
            return Ok((durable, FrameFault::CutOff));
        }
        match reader.next(extent.end, &Expect::after(extent)) {
            Ok(frame) => {
                durable = durable.max(frame.head.durable);
                visit(&frame);
                extent.push(&frame.head, index_every_bytes);
            }
            Err(Stop::Fault(fault)) => return Ok((durable, fault)),
            Err(Stop::Io(error)) => return Err(error),
        }
    }
}

/// What lies behind damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The highest watermark in a frame header that is whole.
    pub durable: Index,
    /// How many such headers there are.
    pub frames: u64,
    /// Where the last of these frames ends; 0 when there is none.
    pub end: u64,
    /// The byte behind the last one that is not zero.
    pub used_end: u64,
}

/// Looks through the file from `at` for frames of this log with an index above `above` and below
/// `below`. Others are stale, left from an earlier life of the file, and no evidence of anything.
pub(crate) fn evidence(
    file: &dyn DiskFile,
    salt: Salt,
    at: u64,
    above: Index,
    below: Index,
) -> io::Result<Evidence> {
    let mut found = Evidence {
        used_end: at,
        ..Evidence::default()
    };
    let len = file.len()?;
    let mut reader = FrameReader::new(file, salt, SCAN_BYTES);
    let mut at = at;
    while at < len {
        let step = {
            let bytes = reader.bytes(at, FRAME_ALIGNMENT)?;
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|b| *b != 0) {
                found.used_end = at + bytes.len() as u64;
            }
            bytes.first_chunk::<4>() == Some(&MAGIC.to_le_bytes())
        };
        if !step {
            at += FRAME_ALIGNMENT as u64;
            continue;
        }
        let mut skip = FRAME_ALIGNMENT as u64;
        match reader.head(at) {
            Ok(head)
                if head.index > above
                    && (head.index < below || planted::is(Bug::StaleEvidence)) =>
            {
                found.durable = found.durable.max(head.durable);
                found.frames += 1;
                found.end = at + head.frame_len() as u64;
                match reader.whole(at, &head) {
                    Ok(_) => skip = head.frame_len() as u64,
                    Err(Stop::Fault(_)) => {}
                    Err(Stop::Io(error)) => return Err(error),
                }
            }
            Ok(_) | Err(Stop::Fault(_)) => {}
            Err(Stop::Io(error)) => return Err(error),
        }
        at += skip;
        if skip > FRAME_ALIGNMENT as u64 {
            found.used_end = at;
        }
    }
    Ok(found)
}

/// The first place from `at` on where the header of a frame of this log with this index is whole.
pub(crate) fn find_head(
    file: &dyn DiskFile,
    salt: Salt,
    at: u64,
    index: Index,
) -> io::Result<Option<(u64, FrameHead)>> {
    let len = file.len()?;
    let mut reader = FrameReader::new(file, salt, SCAN_BYTES);
    for at in (at..len).step_by(FRAME_ALIGNMENT) {
        let is_frame =
            reader.bytes(at, FRAME_ALIGNMENT)?.first_chunk::<4>() == Some(&MAGIC.to_le_bytes());
        if !is_frame {
            continue;
        }
        match reader.head(at) {
            Ok(head) if head.index == index => return Ok(Some((at, head))),
            Ok(_) | Err(Stop::Fault(_)) => {}
            Err(Stop::Io(error)) => return Err(error),
        }
    }
    Ok(None)
}

const CHUNK_BYTES: usize = 1 << 20;

/// Writes the bytes from `at` to `end` once more, with what they hold. After a failed flush the
/// system may show bytes that never reached the disk, and flush nothing at a second flush: only a
/// new write makes it flush them.
pub(crate) fn write_again(file: &dyn DiskFile, at: u64, end: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = at;
    while at < end {
        let wanted = CHUNK_BYTES.min((end - at) as usize);
        let count = file.read_at(at, &mut chunk[..wanted])?;
        if count == 0 {
            break;
        }
        file.write_all_at(at, &chunk[..count])?;
        at += count as u64;
    }
    Ok(())
}

/// Overwrites everything from `at` on with zeros, and flushes. Zeros too are overwritten: those that
/// are seen may come from a process whose flush failed, with old frames below them on the disk.
pub(crate) fn zero_rest(file: &dyn DiskFile, at: u64) -> io::Result<()> {
    zero(file, at, file.len()?)?;
    file.sync_data()
}

/// Overwrites the bytes from `at` to `end` with zeros.
pub(crate) fn zero(file: &dyn DiskFile, at: u64, end: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK_BYTES];
    let mut at = at;
    while at < end {
        let count = CHUNK_BYTES.min((end - at) as usize);
        file.write_all_at(at, &zeros[..count])?;
        at += count as u64;
    }
    Ok(())
}

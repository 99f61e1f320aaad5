//! Putting the right frame where an entry is damaged, from a peer that has it.
//!
//! Damage to what was acknowledged is refused at the opening and is never mended by itself. A
//! replica with peers can fetch the entry that the refusal names, and put it back before the log is
//! opened again. The frame is only written where everything around it agrees: it continues the chain
//! before it, it has the checksum that the peer's chain has there, and where a whole frame or a
//! segment follows, that one is chained to it. Where none does, the entry must be committed.
//!
//! A log whose end is gone is not mended: which of the entries that it lost were acknowledged, nobody
//! knows.

use std::sync::Arc;

use onelog_record::{BODY_BYTES_MAX, Entry, Index};

use crate::disk::{Disk, DiskFile};
use crate::frame::{self, FRAME_ALIGNMENT, FrameFault, Salt, frame_len};
use crate::hard_state::{HardStateFile, Stored};
use crate::recovery::{Loaded, load};
use crate::scan::{Expect, FrameReader, SCAN_BYTES, Stop, evidence, find_head, scan};
use crate::segment::{Extent, parse_name};
use crate::{Corruption, HardStateError, Log, LogReader, MendError, OpenError, ReadError};

/// An entry as another replica has it, to put it back where its frame is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    pub entry: Entry,
    /// That of the entry's frame in the log that it comes from.
    pub checksum: u32,
    /// Whether it is committed there.
    pub is_committed: bool,
}

/// Where the damaged entry is.
struct Wound {
    segment: Loaded,
    /// What follows it, where there is a later segment.
    next: Option<Loaded>,
    file: Arc<dyn DiskFile>,
    /// The segment up to the damaged frame.
    before: Extent,
    /// What is there instead of its frame.
    fault: FrameFault,
}

impl Log {
    /// Whether the frame of `index` is damaged in a way that can be mended, in a log that is not open.
    /// Blocks.
    ///
    /// # Errors
    /// Why it cannot; `LostTail` where not one frame is damaged but the log's end is gone.
    pub fn wound(disk: &dyn Disk, index: Index) -> Result<(), MendError> {
        let stored = stored(disk)?;
        let wound = find(disk, index, &stored)?;
        wound.check_tail(&stored)
    }

    /// Puts an entry back where its frame is damaged, in a log that is not open: the one that
    /// [`OpenError::Corrupt`] or [`crate::ReadError::Corrupt`] has named. Durable when it answers; cut
    /// short, it is done again. Blocks.
    ///
    /// # Errors
    /// Unless the disk fails, an error has changed nothing.
    pub fn mend(disk: &dyn Disk, copied: &Copied) -> Result<(), MendError> {
        mend(disk, &stored(disk)?, copied)
    }
}

impl LogReader {
    /// An entry that is durable here, for a replica where its frame is damaged; `None` where the log
    /// does not have it. `committed` is the last entry that is known to be.
    ///
    /// # Errors
    /// As [`LogReader::entries`], but never `Cut`.
    pub fn copied(&self, index: Index, committed: Index) -> Result<Option<Copied>, ReadError> {
        // The entry and its checksum out of one read: between two the end may be cut and replaced.
        let read = || {
            if index > self.shared.durable() {
                return Ok(Vec::new());
            }
            self.chained(index, index.next(), 0)
        };
        let found = match self.at_one_time(read) {
            Err(ReadError::Cut { .. }) => return Ok(None),
            read => read?,
        };
        Ok(found.into_iter().next().map(|found| Copied {
            entry: found.entry,
            checksum: found.chain,
            is_committed: index <= committed,
        }))
    }

    /// [`Log::mend`] while the log is open, for an entry that is durable. Readers see the damage until
    /// it answers. Blocks.
    ///
    /// # Errors
    /// As [`Log::mend`].
    pub fn mend(&self, copied: &Copied) -> Result<(), MendError> {
        let shared = &self.shared;
        // No file of a segment is dropped, cut or used again meanwhile.
        let _files = shared.files.lock();
        let stored = shared.hard.lock().as_ref().map(|hard| hard.stored);
        let index = copied.entry.index;
        let mut stored = stored.ok_or(MendError::NotThere(index))?;
        let durable = shared.durable();
        if index > durable {
            return Err(MendError::NotThere(index));
        }
        stored.public.durable = durable;
        mend(&*shared.disk, &stored, copied)
    }
}

fn stored(disk: &dyn Disk) -> Result<Stored, MendError> {
    let hard = HardStateFile::read(disk, false).map_err(OpenError::from)?;
    let hard = hard.ok_or_else(|| OpenError::from(HardStateError::Missing))?;
    Ok(hard.stored)
}

fn mend(disk: &dyn Disk, stored: &Stored, copied: &Copied) -> Result<(), MendError> {
    let Copied {
        entry, checksum, ..
    } = copied;
    let wound = find(disk, entry.index, stored)?;
    let salt = Salt::of(stored.public.log_id);
    let bytes = wound.frame_of(entry, *checksum, salt)?;
    let expect = Expect {
        index: entry.index.next(),
        offset: entry.header.end(),
        previous: *checksum,
        term: entry.term,
    };
    if !wound.is_followed(&expect, bytes.len() as u64, salt)? {
        wound.check_tail(stored)?;
        // Nothing here vouches for it, and what is not committed may be another one there.
        if !copied.is_committed {
            return Err(MendError::NotCommitted(entry.index));
        }
    }
    let name = wound.segment.header.name();
    let failed = |source| OpenError::Io {
        doing: format!("mending entry {} in {name}", entry.index),
        source,
    };
    let written = wound.file.write_all_at(wound.before.end, &bytes);
    written
        .and_then(|()| wound.file.sync_data())
        .map_err(failed)?;
    tracing::warn!(
        file = name,
        at = wound.before.end,
        index = entry.index.0,
        "put a damaged entry back, from a copy that its neighbours vouch for"
    );
    Ok(())
}

/// Finds the frame of `index`, which must be damaged while all before it in its segment is whole.
fn find(disk: &dyn Disk, index: Index, stored: &Stored) -> Result<Wound, MendError> {
    let (segment, next) = segments_at(disk, index, stored)?;
    let name = segment.header.name();
    let io = || OpenError::io(format!("reading {name}"));
    let file = disk.open(&name).map_err(io())?;
    let salt = Salt::of(stored.public.log_id);
    let mut before = Extent::empty(&segment.header);
    let (_, fault) = scan(&*file, salt, &mut before, u64::MAX, index, &mut |_| {}).map_err(io())?;
    if before.next_index < index {
        return Err(MendError::Before(Corruption {
            file: name,
            at: before.end,
            index: before.next_index,
            what: fault.to_string(),
        }));
    }
    let mut reader = FrameReader::new(&*file, salt, SCAN_BYTES);
    match reader.next(before.end, &Expect::after(&before)) {
        Ok(_) => Err(MendError::Whole(index)),
        Err(Stop::Io(source)) => Err(io()(source).into()),
        Err(Stop::Fault(fault)) => Ok(Wound {
            segment,
            next,
            file: Arc::clone(&file),
            before,
            fault,
        }),
    }
}

/// The segment that holds `index`, and the one behind it.
fn segments_at(
    disk: &dyn Disk,
    index: Index,
    stored: &Stored,
) -> Result<(Loaded, Option<Loaded>), MendError> {
    let names = disk.list().map_err(OpenError::io("listing the folder"))?;
    let mut names: Vec<(Index, &String)> = names
        .iter()
        .filter_map(|name| parse_name(name).map(|(_, first)| (first, name)))
        .collect();
    names.sort();
    let counted = stored.first_segment.max(1)..=stored.last_segment;
    let is_cut = stored.truncate_from != Index::ZERO && index >= stored.truncate_from;
    let place = names.partition_point(|(first, _)| *first <= index);
    let holder = place.checked_sub(1).map(|place| names[place]);
    let Some((first, name)) = holder.filter(|_| !is_cut) else {
        return Err(MendError::NotThere(index));
    };
    let segment = load(disk, name, first, stored)?;
    if !counted.contains(&segment.header.number) {
        return Err(MendError::NotThere(index));
    }
    let next = names.get(place);
    let next = next.map(|(first, name)| load(disk, name, *first, stored));
    let next = next.transpose()?;
    let follows = |next: &Loaded| next.header.number == segment.header.number + 1;
    Ok((segment, next.filter(follows)))
}

impl Wound {
    /// The frame of `entry`, where it fits into its place.
    fn frame_of(&self, entry: &Entry, checksum: u32, salt: Salt) -> Result<Vec<u8>, MendError> {
        let before = &self.before;
        let refuse = |what: String| {
            Err(MendError::Other {
                index: entry.index,
                what,
            })
        };
        let base = entry.header.base_offset.0;
        if base != before.next_offset.0 || base.checked_add(1 << 32).is_none() {
            return refuse(format!(
                "its base offset is {base}, not {}",
                before.next_offset
            ));
        }
        if entry.term < before.term || entry.body.len() > BODY_BYTES_MAX {
            return refuse(format!(
                "its term is {}, before it is {}",
                entry.term, before.term
            ));
        }
        if before.end + frame_len(entry.body.len()) as u64 > self.segment.capacity {
            return refuse("it is longer than its place".to_owned());
        }
        let mut bytes = Vec::new();
        let found = frame::encode(entry, before.crc, Index::ZERO, salt, &mut bytes);
        if found != checksum {
            return refuse(format!(
                "its checksum here is {found:#010x}, not {checksum:#010x}"
            ));
        }
        Ok(bytes)
    }

    /// Damage is mended where later frames are there, or where it is the last durable frame that is
    /// damaged. What is not there at all is a log that has lost its end: nobody knows how much more of
    /// it there was, and was acknowledged.
    fn check_tail(&self, stored: &Stored) -> Result<(), MendError> {
        let index = self.before.next_index;
        if self.next.is_some() || self.has_later_frames(stored)? {
            return Ok(());
        }
        let durable = stored.public.durable;
        if index > durable {
            return Err(MendError::NotThere(index));
        }
        let is_absent = matches!(self.fault, FrameFault::CutOff | FrameFault::Magic(0));
        if is_absent || index < durable {
            let last = self.before.last_index();
            return Err(MendError::LostTail { last, durable });
        }
        Ok(())
    }

    fn has_later_frames(&self, stored: &Stored) -> Result<bool, MendError> {
        let salt = Salt::of(stored.public.log_id);
        let below = match stored.truncate_from {
            Index::ZERO => Index(u64::MAX),
            index => index,
        };
        let (at, above) = (self.before.end, self.before.next_index);
        let found = evidence(&*self.file, salt, at, above, below);
        let found = found.map_err(|source| OpenError::Io {
            doing: format!("reading {}", self.segment.header.name()),
            source,
        })?;
        Ok(found.frames > 0)
    }

    /// Whether what follows is chained to the frame that `expect` continues; `false` where nothing
    /// whole follows.
    fn is_followed(&self, expect: &Expect, len: u64, salt: Salt) -> Result<bool, MendError> {
        let index = Index(expect.index.0 - 1);
        let refuse = |what: String| Err(MendError::Other { index, what });
        if let Some(next) = self.next.as_ref().map(|next| &next.header)
            && next.first_index == expect.index
        {
            let is_chained = next.previous == expect.previous
                && next.base_offset == expect.offset
                && next.term == expect.term;
            if !is_chained {
                return refuse(format!("the segment {} does not continue it", next.name()));
            }
            return Ok(true);
        }
        let behind = self.before.end + FRAME_ALIGNMENT as u64;
        let found =
            find_head(&*self.file, salt, behind, expect.index).map_err(|source| OpenError::Io {
                doing: format!("reading {}", self.segment.header.name()),
                source,
            })?;
        let Some((at, head)) = found else {
            return Ok(false);
        };
        if at != self.before.end + len {
            return refuse(format!("the frame behind it is at byte {at}"));
        }
        match expect.check(&head) {
            Ok(()) => Ok(true),
            Err(fault) => refuse(format!("the frame behind it does not continue it: {fault}")),
        }
    }
}

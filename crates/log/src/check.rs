//! The offline check: every header, frame, checksum, link and number of a log that no process
//! writes. It changes nothing, and trusts no index.

use std::io;
use std::ops::ControlFlow;

use onelog_record::{Compression, Entry, EntryKind, Index, Position, Transactions, raw_body};

use crate::disk::Disk;
use crate::frame::{Frame, Salt};
use crate::hard_state::HARD_STATE_FILE;
use crate::reader::to_entry;
use crate::recovery::{Cut, Survey, SurveyOptions, survey};
use crate::scan::{Expect, FrameReader, Stop};
use crate::segment::{Extent, SEGMENT_HEADER_BYTES, SegmentHeader, parse_name};
use crate::{Corruption, HardState, HardStateError, NewerFormat, OpenError};

const INDEX_EVERY_BYTES: u64 = 64 << 10;

/// How much was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub segments: u64,
    /// Entries whose every byte is right.
    pub entries: u64,
    pub transactions: u64,
    pub records: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// What the check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// How much was checked.
    pub checked: Checked,
    /// The hard state; `None` for a new log, and when it is unreadable.
    pub hard_state: Option<HardState>,
    /// The first entry that is there.
    pub first_index: Index,
    pub last_index: Index,
    /// The position before the first entry.
    pub start: Position,
    /// The position behind the last one.
    pub end: Position,
    /// What the next opening will cut: never acknowledged, no fault.
    pub tail: Option<Cut>,
    /// Indexes that contradict the frames.
    pub wrong_indexes: Vec<String>,
    /// What is wrong: the first fault of each file.
    pub faults: Vec<Corruption>,
}

/// The check itself failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The log was made by a newer version of onelog: this one cannot say what is right.
    #[error(transparent)]
    Newer(#[from] NewerFormat),
    #[error("the disk failed during the check ({doing}): {source}")]
    Io { doing: String, source: io::Error },
}

/// Checks the log in `disk`. `visit` gets every entry in order as long as all before it is right;
/// it ends its visits, not the check, with `Break`.
///
/// # Errors
/// When the disk fails. What is wrong with the log is in the report.
pub fn check(
    disk: &dyn Disk,
    visit: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
) -> Result<CheckReport, CheckError> {
    let mut report = CheckReport::default();
    let mut body_fault = None;
    let mut checked = Checked::default();
    let mut wants_more = true;
    let options = SurveyOptions {
        index_every_bytes: INDEX_EVERY_BYTES,
        trust_indexes: false,
        mend_hard_state: false,
    };
    let survey = survey(disk, &options, &mut |frame: &Frame<'_>| {
        let entry = to_entry(frame);
        checked.entries += 1;
        checked.transactions += u64::from(entry.header.transaction_count);
        checked.records += u64::from(entry.header.record_count);
        checked.bytes += frame.head.frame_len() as u64;
        if body_fault.is_none() {
            body_fault = fault_in_body(&entry).map(|what| (entry.index, what));
        }
        if wants_more && body_fault.is_none() {
            wants_more = visit(&entry).is_continue();
        }
    });
    report.checked = checked;
    match survey {
        Ok(found) => report.take(found, body_fault),
        Err(OpenError::Corrupt(fault)) => {
            let file = fault.file.clone();
            report.faults.push(fault);
            first_faults(disk, &file, &mut report)?;
        }
        Err(OpenError::Missing(missing)) => {
            let file = format!("segment number {}", missing.number);
            report.faults.push(Corruption {
                file: file.clone(),
                at: 0,
                index: missing.last,
                what: missing.to_string(),
            });
            first_faults(disk, &file, &mut report)?;
        }
        Err(OpenError::Newer(newer) | OpenError::HardState(HardStateError::Newer(newer))) => {
            return Err(newer.into());
        }
        Err(OpenError::HardState(HardStateError::Io(source))) => {
            let doing = format!("reading {HARD_STATE_FILE}");
            return Err(CheckError::Io { doing, source });
        }
        Err(OpenError::Io { doing, source }) => return Err(CheckError::Io { doing, source }),
        Err(other) => {
            report.faults.push(Corruption {
                file: HARD_STATE_FILE.to_owned(),
                at: 0,
                index: Index::ZERO,
                what: other.to_string(),
            });
            first_faults(disk, HARD_STATE_FILE, &mut report)?;
        }
    }
    Ok(report)
}

impl CheckReport {
    fn take(&mut self, found: Survey, body_fault: Option<(Index, String)>) {
        self.checked.segments = found.segments.len() as u64;
        self.hard_state = found.hard.as_ref().map(|hard| hard.stored.public);
        if let (Some(first), Some(last)) = (found.segments.first(), found.segments.last()) {
            self.first_index = first.header.first_index;
            self.start = first.header.base_offset;
            self.last_index = last.extent.last_index();
            self.end = last.extent.next_offset;
        }
        if let Some((index, what)) = body_fault {
            let holder = found
                .segments
                .iter()
                .rfind(|segment| segment.header.first_index <= index);
            self.faults.push(Corruption {
                file: holder.map_or_else(String::new, |s| s.header.name()),
                at: SEGMENT_HEADER_BYTES,
                index,
                what,
            });
        }
        self.tail = found.cut;
        self.wrong_indexes = found.wrong_indexes;
    }
}

/// What is wrong inside a body whose checksum is right.
fn fault_in_body(entry: &Entry) -> Option<String> {
    let raw = match raw_body(entry) {
        Ok(raw) => raw,
        Err(error) => return Some(error.to_string()),
    };
    if entry.header.kind != EntryKind::Transactions {
        let plain = entry.header.compression == Compression::None && entry.header.record_count == 0;
        return (!plain).then(|| "an entry without transactions has records".to_owned());
    }
    let (mut transactions, mut records) = (0u32, 0u64);
    for transaction in Transactions::new(raw, entry.header.base_offset) {
        match transaction {
            Ok(transaction) => {
                transactions = transactions.saturating_add(1);
                records += u64::from(transaction.record_count);
            }
            Err(error) => return Some(error.to_string()),
        }
    }
    let expected = (
        entry.header.transaction_count,
        u64::from(entry.header.record_count),
    );
    ((transactions, records) != expected).then(|| {
        format!(
            "the body holds {transactions} transactions and {records} records, its header says {} and {}",
            expected.0, expected.1
        )
    })
}

/// Once something is wrong, each segment is judged by itself: its first frame that is wrong and has
/// a whole frame or a whole segment behind it.
fn first_faults(disk: &dyn Disk, named: &str, report: &mut CheckReport) -> Result<(), CheckError> {
    let io = |doing: String| move |source| CheckError::Io { doing, source };
    let names = disk.list().map_err(io("listing the folder".to_owned()))?;
    let mut segments: Vec<_> = names
        .iter()
        .filter_map(|name| parse_name(name).map(|(_, index)| (index, name)))
        .collect();
    segments.sort();
    report.checked.segments = segments.len() as u64;
    for (place, (index, name)) in segments.iter().enumerate() {
        if *name == named {
            continue;
        }
        let next = segments.get(place + 1).map(|(index, _)| *index);
        let fault = first_fault(disk, name, *index, next).map_err(io(format!("reading {name}")))?;
        report.faults.extend(fault);
    }
    Ok(())
}

fn first_fault(
    disk: &dyn Disk,
    name: &str,
    index: Index,
    next: Option<Index>,
) -> io::Result<Option<Corruption>> {
    let fault = |at, index, what: String| {
        Ok(Some(Corruption {
            file: name.to_owned(),
            at,
            index,
            what,
        }))
    };
    let file = disk.open(name)?;
    let mut block = vec![0; SEGMENT_HEADER_BYTES as usize];
    let count = file.read_at(0, &mut block)?;
    let header = match SegmentHeader::decode(&block[..count]) {
        Ok(header) => header,
        Err(what) => return fault(0, index, what.to_owned()),
    };
    let salt = Salt::of(header.log_id);
    let mut reader = FrameReader::new(&*file, salt, crate::scan::SCAN_BYTES);
    let mut extent = Extent::empty(&header);
    loop {
        match reader.next(extent.end, &Expect::after(&extent)) {
            Ok(frame) => extent.push(&frame.head, INDEX_EVERY_BYTES),
            Err(Stop::Io(error)) => return Err(error),
            Err(Stop::Fault(what)) => {
                let ends_well = next.is_none_or(|next| next == extent.next_index);
                if ends_well {
                    return Ok(None);
                }
                return fault(extent.end, extent.next_index, what.to_string());
            }
        }
    }
}

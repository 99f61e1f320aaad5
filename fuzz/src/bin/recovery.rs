//! Recovery: a valid log that the input damages, or files of arbitrary bytes, are opened.
//!
//! Nothing may panic. Whatever is served is an entry that was written, in its place; only where the
//! input makes right checksums itself, it need only be numbered without gaps. What the untouched
//! hard state knows as durable is there, or the log refuses to open.
#![no_main]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::arbitrary::{Result as Taken, Unstructured};
use libfuzzer_sys::fuzz_target;
use onelog_fuzz::{bodies, seeds};
use onelog_log::frame::{FRAME_HEADER_BYTES, MAGIC};
use onelog_log::{
    CheckError, CrashMode, Fault, HardState, HardStateError, Log, LogOptions, OpenError,
    SimulatedDisk, check,
};
use onelog_record::{Compression, Entry, Index, Position, Term, raw_body};

const LOG_ID: u128 = 0x5eed;
const HARD_STATE: &str = "hard-state";
const ENTRIES: u64 = 40;
const CUT_FROM: u64 = 11;
/// Enough for the intent, and not for all of it.
const STEPS_OF_A_CUT: u64 = 8;
const EDITS_MAX: usize = 8;
const FILE_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 1 << 20;

type Files = BTreeMap<String, Vec<u8>>;

fuzz_target!(init: seeds::hand_out(make_seeds), |data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    let originals = originals();
    let original = &originals[usize::from(*which) % originals.len()];
    let mut case = Case {
        original,
        files: original.files.clone(),
        hard_state_touched: false,
        forged: false,
    };
    // Input that ends early is simply a shorter list of edits.
    let _ = case.edit(&mut Unstructured::new(bytes));
    case.open();
});

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 8 << 10,
        index_every_bytes: 512,
        in_flight_bytes_max: 1 << 20,
    }
}

/// A log before it is damaged.
struct Original {
    files: Files,
    entries: Vec<Entry>,
    /// The durable watermark of the hard state.
    durable: Index,
}

fn originals() -> &'static [Original] {
    static MADE: OnceLock<Vec<Original>> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut made = vec![nothing()];
        made.extend([End::Closed, End::Killed, End::CutShort].map(write_log));
        made.extend(CrashMode::ALL.map(|mode| write_log(End::Crashed(mode))));
        made
    })
}

fn nothing() -> Original {
    Original {
        files: Files::new(),
        entries: Vec::new(),
        durable: Index::ZERO,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Closed,
    Killed,
    Crashed(CrashMode),
    /// In the middle of a cut of the log's end.
    CutShort,
}

fn entries() -> Vec<Entry> {
    let mut made = Vec::new();
    let mut offset = 0;
    for index in 1..=ENTRIES {
        let compression = [Compression::None, Compression::Lz4, Compression::Zstd];
        let transactions = 1 + (index % 7) as u32;
        let body = bodies::body(u128::from(index) * 100, transactions);
        let mut entry = bodies::entry(
            index,
            offset,
            body,
            transactions,
            compression[index as usize % 3],
        );
        entry.term = Term(1 + index / 16);
        offset = entry.header.end().0;
        made.push(entry);
    }
    made
}

fn write_log(end: End) -> Original {
    let entries = entries();
    let disk = SimulatedDisk::new(7);
    let (mut log, _) = Log::open(Arc::new(disk.clone()), options()).expect("an empty disk opens");
    let mut state = HardState {
        log_id: LOG_ID,
        node: 1,
        ..HardState::default()
    };
    let mut flushes = Vec::new();
    let mut durable = Index::ZERO;
    for group in entries.chunks(3) {
        if let Some(entry) = group.first().filter(|entry| entry.term > state.term) {
            state.term = entry.term;
            log.save_hard_state(&state).expect("the disk is well");
            durable = log.durable();
        }
        flushes.extend(log.stage(group).expect("the entries are in order"));
        // The last groups stay in flight where the end is a crash, the very last one is unwritten.
        let last = group.last().expect("a chunk is not empty").index.0;
        let keep = if matches!(end, End::Crashed(_)) && last + 6 > ENTRIES {
            2
        } else {
            0
        };
        while flushes.len() > keep {
            let flush = flushes.remove(0);
            flush.run().expect("the disk is well");
            log.flushed(flush.number);
        }
        if let Some(job) = log.prepare() {
            job.run().expect("the disk is well");
        }
    }
    match end {
        End::Closed => {
            log.close(&state).expect("nothing is in flight");
            durable = Index(ENTRIES);
        }
        End::Killed => drop(log),
        End::Crashed(mode) => disk.crash(mode),
        End::CutShort => {
            disk.fail_at(disk.steps() + STEPS_OF_A_CUT, Fault::CrashNow);
            log.cut_end(Index(CUT_FROM))
                .expect_err("the power goes before it is done");
            disk.crash(CrashMode::LoseAll);
            durable = Index(CUT_FROM - 1);
        }
    }
    Original {
        files: disk.files(),
        entries,
        durable,
    }
}

struct Case {
    original: &'static Original,
    files: Files,
    hard_state_touched: bool,
    forged: bool,
}

impl Case {
    fn edit(&mut self, input: &mut Unstructured<'_>) -> Taken<()> {
        for _ in 0..EDITS_MAX {
            if input.is_empty() {
                break;
            }
            match input.int_in_range(0..=8)? {
                0 => self.new_file(input)?,
                1 => self.remove_or_rename(input)?,
                2 => self.copy(input)?,
                3 => self.forge(input)?,
                kind => self.change(kind, input)?,
            }
        }
        Ok(())
    }

    fn pick(&mut self, input: &mut Unstructured<'_>) -> Taken<Option<String>> {
        if self.files.is_empty() {
            return Ok(None);
        }
        let place = input.choose_index(self.files.len())?;
        Ok(self.files.keys().nth(place).cloned())
    }

    fn touch(&mut self, name: &str) {
        self.hard_state_touched |= name == HARD_STATE;
    }

    /// A file of arbitrary bytes, under a name of the log's own or a similar one.
    fn new_file(&mut self, input: &mut Unstructured<'_>) -> Taken<()> {
        const NAMES: [&str; 7] = [
            HARD_STATE,
            "restart",
            "hard-state.new",
            "00000000000000000000-00000000000000000001.log",
            "00000000000000000000-00000000000000000001.index",
            "18446744073709551615-18446744073709551615.log",
            "00000000000000000007-00000000000000000009.log",
        ];
        let name = *input.choose(&NAMES)?;
        let len = input.int_in_range(0..=3usize)? * 4096;
        let mut bytes = input.arbitrary::<&[u8]>()?.to_vec();
        bytes.resize(bytes.len().max(len), 0);
        bytes.truncate(FILE_BYTES_MAX);
        self.touch(name);
        self.files.insert(name.to_owned(), bytes);
        Ok(())
    }

    fn remove_or_rename(&mut self, input: &mut Unstructured<'_>) -> Taken<()> {
        let (Some(from), Some(to)) = (self.pick(input)?, self.pick(input)?) else {
            return Ok(());
        };
        self.touch(&from);
        self.touch(&to);
        let bytes = self.files.remove(&from).unwrap_or_default();
        if from != to {
            self.files.insert(to, bytes);
        }
        Ok(())
    }

    fn copy(&mut self, input: &mut Unstructured<'_>) -> Taken<()> {
        let (Some(from), Some(to)) = (self.pick(input)?, self.pick(input)?) else {
            return Ok(());
        };
        let at = place(input, self.files[&from].len())?;
        let len = place(input, self.files[&from].len() - at)?;
        let part = self.files[&from][at..at + len].to_vec();
        let into = place(input, self.files[&to].len())?;
        self.overwrite(&to, into, &part);
        Ok(())
    }

    fn overwrite(&mut self, name: &str, at: usize, part: &[u8]) {
        self.touch(name);
        if let Some(bytes) = self.files.get_mut(name) {
            let end = (at + part.len()).min(FILE_BYTES_MAX);
            bytes.resize(bytes.len().max(end), 0);
            bytes[at..end].copy_from_slice(&part[..end - at]);
        }
    }

    fn change(&mut self, kind: u8, input: &mut Unstructured<'_>) -> Taken<()> {
        let Some(name) = self.pick(input)? else {
            return Ok(());
        };
        let len = self.files[&name].len();
        let at = place(input, len)?;
        match kind {
            4 => {
                let part: [u8; 8] = input.arbitrary()?;
                let used = input.int_in_range(1..=8)?;
                self.overwrite(&name, at, &part[..used]);
            }
            5 => {
                let bit = 1 << input.int_in_range(0..=7)?;
                let flipped = self.files[&name].get(at).map(|byte| byte ^ bit);
                self.overwrite(&name, at, flipped.as_slice());
            }
            6 => {
                let zeros = vec![0; place(input, len - at)?];
                self.overwrite(&name, at, &zeros);
            }
            7 => {
                self.touch(&name);
                let new_len = if input.arbitrary()? { at } else { len + at };
                if let Some(bytes) = self.files.get_mut(&name) {
                    bytes.resize(new_len.min(FILE_BYTES_MAX), 0);
                }
            }
            _ => {
                let part = input.arbitrary::<&[u8]>()?;
                self.overwrite(&name, at, part);
            }
        }
        Ok(())
    }

    /// Changes a frame, or what passes for one, and makes its checksums right.
    fn forge(&mut self, input: &mut Unstructured<'_>) -> Taken<()> {
        let Some(name) = self.pick(input)? else {
            return Ok(());
        };
        let patch_at = input.int_in_range(4..=FRAME_HEADER_BYTES - 1)?;
        let patch: [u8; 4] = input.arbitrary()?;
        let nth = input.int_in_range(0..=8usize)?;
        self.forged = true;
        self.touch(&name);
        let Some(bytes) = self.files.get_mut(&name) else {
            return Ok(());
        };
        let starts = |at: &usize| bytes[*at..].starts_with(&MAGIC.to_le_bytes());
        let Some(at) = (0..bytes.len()).step_by(8).filter(starts).nth(nth) else {
            return Ok(());
        };
        let Some(frame) = bytes[at..].first_chunk_mut::<FRAME_HEADER_BYTES>() else {
            return Ok(());
        };
        for (byte, new) in frame[patch_at..].iter_mut().zip(patch) {
            *byte = new;
        }
        let frame_crc = crc32c::crc32c(&frame[..68]);
        frame[68..72].copy_from_slice(&frame_crc.to_le_bytes());
        let salt = crc32c::crc32c(&LOG_ID.to_le_bytes());
        let local_crc = crc32c::crc32c_append(salt, &frame[68..80]);
        frame[80..84].copy_from_slice(&local_crc.to_le_bytes());
        Ok(())
    }

    fn open(&self) {
        let mut files = self.files.clone();
        if self.forged {
            // An index vouches for frames that are then not read: it would hide a forged one.
            files.retain(|name, _| !name.ends_with(".index"));
        }
        let disk = SimulatedDisk::with_files(3, files);
        let mut visited = Vec::new();
        let checked = check(&disk, &mut |entry| {
            visited.push(entry.clone());
            ControlFlow::Continue(())
        });
        self.judge_entries(&visited);
        let report = match checked {
            Ok(report) => report,
            Err(CheckError::Newer(newer)) => {
                let refused = Log::open(Arc::new(disk), options());
                assert!(refused.is_err(), "opened, but the check says: {newer}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        match Log::open(Arc::new(disk.clone()), options()) {
            Ok((mut log, recovery)) => {
                let served = read_all(&log);
                self.judge_entries(&served);
                if !self.hard_state_touched && !self.original.files.is_empty() {
                    assert!(
                        recovery.last_index >= self.original.durable,
                        "durable entries are gone"
                    );
                    assert_eq!(recovery.first_index, Index(1));
                }
                assert_eq!(
                    (recovery.first_index, recovery.last_index),
                    (log.first_index(), log.last_index())
                );
                self.go_on(&mut log, &disk, &served);
            }
            Err(OpenError::Io { source, doing }) => panic!("{doing}: {source}"),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                let known = matches!(error, OpenError::HardState(HardStateError::Missing));
                assert!(
                    known || !report.faults.is_empty(),
                    "the check overlooked: {error}"
                );
            }
        }
    }

    /// Only entries that were written, in their places, without gaps.
    fn judge_entries(&self, found: &[Entry]) {
        for pair in found.windows(2) {
            assert_eq!(pair[1].index, pair[0].index.next());
            assert_eq!(pair[1].header.base_offset.0, pair[0].header.end().0);
            assert!(pair[1].term >= pair[0].term);
        }
        for entry in found {
            if self.forged {
                let _ = raw_body(entry);
                continue;
            }
            let written = self.original.entries.get(entry.index.0 as usize - 1);
            assert_eq!(Some(entry), written, "an entry that was never written");
        }
    }

    /// The log takes another entry, and has it and all others when it is opened again.
    fn go_on(&self, log: &mut Log, disk: &SimulatedDisk, served: &[Entry]) {
        let last = log.last_index();
        let Some(state) = log.hard_state() else {
            assert!(served.is_empty());
            return;
        };
        let mut more = bodies::entry(
            last.0 + 1,
            log.end().0,
            bodies::body(7, 2),
            2,
            Compression::None,
        );
        more.term = served
            .last()
            .map_or(Term(1), |entry| entry.term)
            .max(state.term);
        let Ok(flushes) = log.stage(std::slice::from_ref(&more)) else {
            assert!(self.forged, "a log that was opened takes entries");
            return;
        };
        for flush in flushes {
            flush.run().expect("the disk is well");
            log.flushed(flush.number);
        }
        assert_eq!(log.durable(), more.index);
        disk.crash(CrashMode::LoseAll);
        let (log, recovery) = Log::open(Arc::new(disk.clone()), options())
            .unwrap_or_else(|error| panic!("it was open before: {error}"));
        assert_eq!(recovery.last_index, more.index);
        let again = read_all(&log);
        if again.len() as u64 == more.index.0 {
            assert_eq!(again.last(), Some(&more));
        }
        assert!(again.starts_with(served));
    }
}

/// A place from 0 to `end`, that included.
fn place(input: &mut Unstructured<'_>, end: usize) -> Taken<usize> {
    input.int_in_range(0..=end)
}

/// Everything that the log serves, up to the first damage.
fn read_all(log: &Log) -> Vec<Entry> {
    let reader = log.reader();
    let mut found: Vec<Entry> = Vec::new();
    let mut next = log.first_index();
    while next <= log.last_index() {
        match reader.entries(next, log.last_index().next(), READ_BYTES) {
            Ok(batch) if batch.is_empty() => break,
            Ok(batch) => {
                next = batch[batch.len() - 1].index.next();
                found.extend(batch);
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
    let from_start = reader.entries_from(Position::ZERO, Index(u64::MAX), READ_BYTES);
    assert!(from_start.is_err() || log.start() == Position::ZERO || found.is_empty());
    found
}

fn make_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for which in 0..originals().len() as u8 {
        seeds.push(vec![which]);
        for kind in 0..=8u8 {
            let mut seed = vec![which, kind];
            seed.extend((0..40u8).map(|n| n.wrapping_mul(37).wrapping_add(kind * 11)));
            seeds.push(seed);
        }
    }
    seeds
}

//! Opening a log: what is there, what was acknowledged, and what may be cut.
//!
//! The *survey* only reads. It follows the chain of frames as far as it goes; the last frame on it
//! is `L`. The *watermark* `W` is the highest index that is known to have been durable: from the
//! hard state, from the segments' headers, from the frames before `L`, and from whole frames found
//! behind it. Every acknowledged entry was durable, and every later frame says so: when `W > L`,
//! acknowledged entries are damaged, and the log refuses to open. Otherwise whatever lies behind
//! `L` was never acknowledged.
//!
//! Only then is anything *mended* ([`crate::mend`]).

use onelog_record::{Index, Position, Term};

use crate::disk::Disk;
use crate::frame::{Frame, FrameFault, Salt};
use crate::hard_state::{HardStateFile, HardStateRead, Stored};
use crate::index_file::{index_name, read_index};
use crate::mend::{Recovered, mend};
use crate::planted::{self, Bug};
use crate::restart::{RESTART_FILE, unfinished_restart};
use crate::scan::{Evidence, evidence, scan};
use crate::segment::{Extent, KNOWN, SEGMENT_HEADER_BYTES, SegmentHeader, parse_name};
use crate::{Corruption, HardStateError, LogOptions, MissingSegment, OpenError};

/// What opening a log found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The hard state as it was found.
    pub hard_state: HardStateRead,
    /// The first entry that is there; where there is none, the one that would be first.
    pub first_index: Index,
    /// The last entry. All up to here are durable.
    pub last_index: Index,
    /// The position before the first entry.
    pub start: Position,
    /// The position behind the last entry.
    pub end: Position,
    /// The highest timestamp of the entries that are there.
    pub timestamp_ms: u64,
    /// The first index of each run of one term, ascending; the first run begins with the entry before
    /// the log's first one, where that is known.
    pub terms: Vec<(Index, Term)>,
    /// What was cut: entries that were never acknowledged.
    pub cut: Option<Cut>,
    /// How many segments there are.
    pub segments: usize,
    /// How many of them were read through because no index vouched for them.
    pub scanned_segments: usize,
}

/// What recovery cut from the end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub file: String,
    /// The byte in it from which on it was cut.
    pub at: u64,
    /// The index of the first entry that was cut.
    pub index: Index,
    /// How many bytes of frames were cut, as far as one can tell.
    pub lost_bytes: u64,
    /// What is there instead of the next frame.
    pub what: FrameFault,
}

/// A segment as the survey found it.
#[derive(Debug)]
pub(crate) struct Surveyed {
    pub header: SegmentHeader,
    pub capacity: u64,
    pub extent: Extent,
    pub indexed: bool,
}

/// What is there, and the verdict on the tail.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub names: Vec<String>,
    pub hard: Option<HardStateFile>,
    /// The segments of the log; the last one is where it ends.
    pub segments: Vec<Surveyed>,
    /// Segments behind the end, ascending.
    pub behind: Vec<String>,
    /// Segments that retention had already given up.
    pub given_up: Vec<String>,
    /// Whether the only segment still waits for its name: see [`crate::restart`].
    pub is_restarting: bool,
    pub cut: Option<Cut>,
    /// The highest index that is known to have been durable.
    pub watermark: Index,
    /// Whether bytes behind the end may hold anything that is not stale.
    pub doubtful_rest: bool,
    /// Index files that contradict the frames (only when indexes are not trusted).
    pub wrong_indexes: Vec<String>,
}

pub(crate) type Visit<'a> = &'a mut dyn FnMut(&Frame<'_>);

pub(crate) struct SurveyOptions {
    pub index_every_bytes: u64,
    /// Whether a valid index file vouches for the frames of a segment.
    pub trust_indexes: bool,
    pub mend_hard_state: bool,
}

/// A segment whose header was read. Its file is closed again: there may be more of them than a
/// process may have files open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    pub header: SegmentHeader,
    pub capacity: u64,
}

/// What the hard state says about the frames.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    salt: Salt,
    /// Where an unfinished cut begins; nothing from there on counts.
    below: Index,
}

fn corrupt(file: &str, at: u64, index: Index, what: impl Into<String>) -> OpenError {
    OpenError::Corrupt(Corruption {
        file: file.to_owned(),
        at,
        index,
        what: what.into(),
    })
}

/// Reads everything that decides about the log; changes nothing.
pub(crate) fn survey(
    disk: &dyn Disk,
    options: &SurveyOptions,
    visit: Visit<'_>,
) -> Result<Survey, OpenError> {
    let names = disk.list().map_err(OpenError::io("listing the folder"))?;
    let mut segment_names: Vec<(Index, &String)> = names
        .iter()
        .filter_map(|name| parse_name(name).map(|(_, index)| (index, name)))
        .collect();
    segment_names.sort();
    let hard = HardStateFile::read(disk, options.mend_hard_state)?;
    let Some(hard) = hard else {
        if !segment_names.is_empty() {
            return Err(HardStateError::Missing.into());
        }
        return Ok(Survey {
            names,
            ..Survey::default()
        });
    };
    let stored = hard.stored;
    let mut loaded = Vec::new();
    let mut given_up = Vec::new();
    for (index, name) in segment_names {
        let segment = load(disk, name, index, &stored)?;
        if segment.header.number < stored.first_segment {
            given_up.push(name.clone());
        } else {
            loaded.push(segment);
        }
    }
    let restart = if loaded.is_empty() {
        unfinished_restart(disk, &names, &stored)?
    } else {
        None
    };
    if restart.is_none() {
        check_numbers(&loaded, &stored)?;
    }
    let mut survey = Survey {
        names,
        hard: Some(hard),
        given_up,
        ..Survey::default()
    };
    match restart {
        Some((header, capacity)) => survey.begin_anew(header, capacity, &stored)?,
        None => survey.follow(disk, options, &stored, &loaded, visit)?,
    }
    Ok(survey)
}

pub(crate) fn load(
    disk: &dyn Disk,
    name: &str,
    index: Index,
    stored: &Stored,
) -> Result<Loaded, OpenError> {
    let doing = || format!("reading the header of {name}");
    let file = disk.open(name).map_err(OpenError::io(doing()))?;
    let capacity = file.len().map_err(OpenError::io(doing()))?;
    let mut block = vec![0; SEGMENT_HEADER_BYTES as usize];
    let count = file
        .read_at(0, &mut block)
        .map_err(OpenError::io(doing()))?;
    KNOWN.check(name, &block[..count])?;
    let header =
        SegmentHeader::decode(&block[..count]).map_err(|what| corrupt(name, 0, index, what))?;
    if header.name() != name {
        let what = format!("the header belongs to the segment {}", header.name());
        return Err(corrupt(name, 0, index, what));
    }
    if header.log_id != stored.public.log_id {
        return Err(corrupt(
            name,
            0,
            index,
            "the segment belongs to another log",
        ));
    }
    Ok(Loaded { header, capacity })
}

/// Segments are numbered without gaps, and the hard state says which numbers must be there.
fn check_numbers(loaded: &[Loaded], stored: &Stored) -> Result<(), OpenError> {
    let mut before = None;
    let mut number = stored.first_segment.max(1);
    for Loaded { header, .. } in loaded {
        if header.number < number {
            let what = format!("it is segment {}, where {number} is next", header.number);
            return Err(corrupt(&header.name(), 0, header.first_index, what));
        }
        if header.number > number {
            return Err(OpenError::Missing(MissingSegment {
                number,
                before,
                after: Some(header.name()),
                last: Index(header.first_index.0 - 1),
            }));
        }
        before = Some(header.name());
        number += 1;
    }
    if number <= stored.last_segment {
        return Err(OpenError::Missing(MissingSegment {
            number,
            before,
            after: None,
            last: stored.public.durable,
        }));
    }
    Ok(())
}

impl Survey {
    /// The log is empty, and begins with this segment.
    fn begin_anew(
        &mut self,
        header: SegmentHeader,
        capacity: u64,
        stored: &Stored,
    ) -> Result<(), OpenError> {
        let extent = Extent::empty(&header);
        self.watermark = stored.public.durable;
        if self.watermark > extent.last_index() {
            let what = format!("entries up to {} were durable", self.watermark);
            return Err(corrupt(RESTART_FILE, 0, header.first_index, what));
        }
        self.is_restarting = true;
        self.segments.push(Surveyed {
            header,
            capacity,
            extent,
            indexed: false,
        });
        Ok(())
    }

    /// Follows the chain through the segments as far as it goes, and judges what lies behind.
    fn follow(
        &mut self,
        disk: &dyn Disk,
        options: &SurveyOptions,
        stored: &Stored,
        loaded: &[Loaded],
        visit: Visit<'_>,
    ) -> Result<(), OpenError> {
        let bounds = Bounds {
            salt: Salt::of(stored.public.log_id),
            below: match stored.truncate_from {
                Index::ZERO => Index(u64::MAX),
                index => index,
            },
        };
        self.watermark = stored.public.durable;
        let mut fault = FrameFault::CutOff;
        let mut rest: &[Loaded] = &[];
        for (place, segment) in loaded.iter().enumerate() {
            let header = &segment.header;
            if let Some(before) = self.segments.last().map(|before| &before.extent) {
                if before.next_index < header.first_index || before.next_index >= bounds.below {
                    rest = &loaded[place..];
                    break;
                }
                if !before.continued_by(header) {
                    let what = "the segment does not continue the one before it";
                    return Err(corrupt(&header.name(), 0, header.first_index, what));
                }
            }
            self.watermark = self.watermark.max(header.durable);
            let next = loaded.get(place + 1).map(|next| &next.header);
            fault = self.read(disk, options, bounds, segment, next, visit)?;
        }
        self.behind = rest.iter().map(|segment| segment.header.name()).collect();
        self.judge(disk, stored, bounds, fault, rest)
    }

    /// Takes in one segment, by its index where that can be trusted; answers why its frames end.
    fn read(
        &mut self,
        disk: &dyn Disk,
        options: &SurveyOptions,
        bounds: Bounds,
        segment: &Loaded,
        next: Option<&SegmentHeader>,
        visit: Visit<'_>,
    ) -> Result<FrameFault, OpenError> {
        let Loaded { header, capacity } = *segment;
        let name = header.name();
        let index = read_index(disk, &header)
            .map_err(OpenError::io(format!("reading the index of {name}")))?
            .filter(|extent| {
                next.is_some_and(|next| extent.continued_by(next))
                    && extent.next_index <= bounds.below
                    && extent.end <= capacity
            });
        let (extent, fault, indexed) = match index {
            Some(extent) if options.trust_indexes => (extent, FrameFault::CutOff, true),
            index => {
                let mut extent = Extent::empty(&header);
                let every = options.index_every_bytes;
                let (durable, fault) = disk
                    .open(&name)
                    .and_then(|file| {
                        scan(&*file, bounds.salt, &mut extent, every, bounds.below, visit)
                    })
                    .map_err(OpenError::io(format!("reading {name}")))?;
                self.watermark = self.watermark.max(durable);
                if index.is_some_and(|i| (i.crc, i.end) != (extent.crc, extent.end)) {
                    self.wrong_indexes.push(index_name(&name));
                }
                (extent, fault, false)
            }
        };
        self.segments.push(Surveyed {
            header,
            capacity,
            extent,
            indexed,
        });
        Ok(fault)
    }

    /// Decides between a torn tail and corruption.
    fn judge(
        &mut self,
        disk: &dyn Disk,
        stored: &Stored,
        bounds: Bounds,
        fault: FrameFault,
        rest: &[Loaded],
    ) -> Result<(), OpenError> {
        let Some(last) = self.segments.last() else {
            return Ok(());
        };
        let name = last.header.name();
        let (at, last_index) = (last.extent.end, last.extent.last_index());
        let is_cutting = stored.truncate_from != Index::ZERO;
        let is_settled = stored.public.clean && stored.public.durable == last_index;
        if is_settled && rest.is_empty() && !is_cutting {
            return Ok(());
        }
        self.doubtful_rest = true;
        let look = |name: &str, at: u64| -> Result<Evidence, OpenError> {
            disk.open(name)
                .and_then(|file| evidence(&*file, bounds.salt, at, last_index, bounds.below))
                .map_err(OpenError::io(format!("looking behind the end of {name}")))
        };
        let here = look(&name, at)?;
        self.watermark = self.watermark.max(here.durable);
        let end = if last.header.recycled {
            here.end
        } else {
            here.used_end.max(here.end)
        };
        let mut lost_bytes = end.saturating_sub(at);
        for segment in rest {
            let there = look(&segment.header.name(), SEGMENT_HEADER_BYTES)?;
            self.watermark = self.watermark.max(there.durable);
            if segment.header.first_index < bounds.below {
                self.watermark = self.watermark.max(segment.header.durable);
            }
            lost_bytes += there.end.saturating_sub(SEGMENT_HEADER_BYTES);
        }
        let watermark = self.watermark;
        if watermark > last_index && !planted::is(Bug::CutBelowWatermark) {
            let what = format!("{fault}; but entries up to {watermark} were durable");
            return Err(corrupt(&name, at, last_index.next(), what));
        }
        if (lost_bytes > 0 || !rest.is_empty()) && !is_cutting {
            self.cut = Some(Cut {
                file: name,
                at,
                index: last_index.next(),
                lost_bytes,
                what: fault,
            });
        }
        Ok(())
    }
}

/// Surveys, judges and mends.
pub(crate) fn recover(
    disk: &dyn Disk,
    options: &LogOptions,
) -> Result<(Recovered, Recovery), OpenError> {
    // The names that are seen may not be durable yet.
    disk.sync_folder()
        .map_err(OpenError::io("flushing the folder"))?;
    let survey_options = SurveyOptions {
        index_every_bytes: options.index_every_bytes,
        trust_indexes: true,
        mend_hard_state: true,
    };
    let survey = survey(disk, &survey_options, &mut |_| {})?;
    if let Some(cut) = &survey.cut {
        tracing::warn!(
            file = cut.file,
            at = cut.at,
            index = cut.index.0,
            lost_bytes = cut.lost_bytes,
            "cut the end of the log: {}; nothing from there on was acknowledged",
            cut.what
        );
    }
    let recovery = report(&survey);
    let recovered =
        mend(disk, options, survey).map_err(OpenError::io("mending the end of the log"))?;
    Ok((recovered, recovery))
}

fn report(survey: &Survey) -> Recovery {
    let mut terms: Vec<(Index, Term)> = Vec::new();
    if let Some(first) = survey.segments.first().map(|segment| &segment.header) {
        let before = (Index(first.first_index.0.saturating_sub(1)), first.term);
        terms.extend((first.term > Term::ZERO).then_some(before));
    }
    for segment in &survey.segments {
        for run in &segment.extent.terms {
            if terms.last().is_none_or(|(_, term)| *term != run.1) {
                terms.push(*run);
            }
        }
    }
    let first = survey.segments.first();
    let last = survey.segments.last();
    let timestamps = survey.segments.iter().map(|s| s.extent.timestamp_ms);
    Recovery {
        hard_state: survey.hard.as_ref().map_or(HardStateRead::Empty, |hard| {
            HardStateRead::Present(hard.stored.public)
        }),
        first_index: first.map_or(Index(1), |s| s.header.first_index),
        last_index: last.map_or(Index::ZERO, |s| s.extent.last_index()),
        start: first.map_or(Position::ZERO, |s| s.header.base_offset),
        end: last.map_or(Position::ZERO, |s| s.extent.next_offset),
        timestamp_ms: timestamps.max().unwrap_or_default(),
        terms,
        cut: survey.cut.clone(),
        segments: survey.segments.len(),
        scanned_segments: survey.segments.iter().filter(|s| !s.indexed).count(),
    }
}

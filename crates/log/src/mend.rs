//! Mending what the survey found, in an order that can be cut short anywhere and done again: the
//! hard state says which segments must exist, segments behind the cut go, last one first, the rest
//! of the last segment is zeroed, and everything that was read is flushed, because the process that
//! wrote it may have been killed before it flushed. What lies above the watermark is written once
//! more first: after a failed flush the system shows bytes that are not on the disk.

use std::collections::HashSet;
use std::io;

use onelog_record::Index;

use crate::LogOptions;
use crate::disk::Disk;
use crate::hard_state::{HARD_STATE_NEW, HardStateFile};
use crate::index_file::{INDEX_SUFFIX, index_name};
use crate::kept::KEPT_NEW;
use crate::prepare::{SPARE_PREFIX, SPARES_MAX, Spare, is_leftover};
use crate::recovery::{Survey, Surveyed};
use crate::restart::{RESTART_FILE, name_first_segment};
use crate::scan::{write_again, zero_rest};
use crate::segment::Segment;
use crate::table_index::{TABLES_SUFFIX, tables_name};

/// A log that is ready to go on.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub hard: Option<HardStateFile>,
    pub segments: Vec<Segment>,
    /// Places in `segments` of those that are sealed and have no index file.
    pub unindexed: Vec<usize>,
    /// The same of those that have no index by table.
    pub untabled: Vec<usize>,
    pub spares: Vec<Spare>,
    pub next_spare: u64,
}

impl Surveyed {
    /// Flushes the frames, those above the watermark after writing them once more.
    fn make_durable(&self, disk: &dyn Disk, watermark: Index) -> io::Result<()> {
        let file = disk.open(&self.header.name())?;
        if self.extent.next_index > watermark.next() {
            let mut known = self.extent.clone();
            known.rewind(&self.header, watermark.next());
            write_again(&*file, known.end, self.extent.end)?;
        }
        file.sync_data()
    }
}

pub(crate) fn mend(
    disk: &dyn Disk,
    options: &LogOptions,
    mut survey: Survey,
) -> io::Result<Recovered> {
    let mut hard = survey.hard.take();
    let last_index = survey
        .segments
        .last()
        .map_or(Index::ZERO, |segment| segment.extent.last_index());
    if let Some(hard) = &mut hard {
        let mut stored = hard.stored;
        stored.public.clean = false;
        stored.last_segment = survey.segments.last().map_or(0, |s| s.header.number);
        stored.first_segment = survey.segments.first().map_or(0, |s| s.header.number);
        if stored != hard.stored {
            hard.save(stored)?;
        }
    }
    for name in survey.behind.iter().rev().chain(&survey.given_up) {
        remove_segment(disk, name)?;
    }
    if let Some(first) = survey.segments.first().filter(|_| survey.is_restarting) {
        name_first_segment(disk, &first.header)?;
    }
    drop_leftovers(disk, &survey)?;
    if let Some(last) = survey.segments.last().filter(|_| survey.doubtful_rest) {
        let file = disk.open(&last.header.name())?;
        zero_rest(&*file, last.extent.end)?;
    }
    for segment in survey.segments.iter().filter(|s| !s.indexed) {
        segment.make_durable(disk, survey.watermark)?;
    }
    if let Some(hard) = &mut hard {
        // From now on these entries count as durable, so their loss must be noticed.
        let mut stored = hard.stored;
        stored.public.durable = last_index;
        stored.truncate_from = Index::ZERO;
        // Even when nothing changed: what was read may not have reached the disk.
        hard.save(stored)?;
    }
    let (spares, next_spare) = collect_spares(disk, options, &survey.names)?;
    let count = survey.segments.len();
    let unindexed = (0..count.saturating_sub(1))
        .filter(|place| !survey.segments[*place].indexed)
        .collect();
    let has_tables = |surveyed: &Surveyed| {
        let name = tables_name(&surveyed.header.name());
        survey.names.contains(&name)
    };
    let untabled = (0..count.saturating_sub(1))
        .filter(|place| survey.segments[*place].indexed && !has_tables(&survey.segments[*place]))
        .collect();
    let segments = survey
        .segments
        .into_iter()
        .map(|s| Segment::new(s.header, s.capacity, s.extent))
        .collect();
    Ok(Recovered {
        hard,
        segments,
        unindexed,
        untabled,
        spares,
        next_spare,
    })
}

/// Removes a segment and its indexes, durably, before anything else happens.
pub(crate) fn remove_segment(disk: &dyn Disk, name: &str) -> io::Result<()> {
    remove_indexes(disk, name)?;
    remove_if_there(disk, name)?;
    disk.sync_folder()
}

/// Removes the indexes of a segment.
pub(crate) fn remove_indexes(disk: &dyn Disk, segment: &str) -> io::Result<()> {
    remove_if_there(disk, &index_name(segment))?;
    remove_if_there(disk, &tables_name(segment))
}

pub(crate) fn remove_if_there(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what an interrupted process left: half-made files, and indexes of segments that are gone
/// or that may still grow.
fn drop_leftovers(disk: &dyn Disk, survey: &Survey) -> io::Result<()> {
    let mut sealed: Vec<String> = survey
        .segments
        .iter()
        .map(|segment| segment.header.name())
        .collect();
    sealed.pop();
    let sealed: HashSet<String> = sealed
        .iter()
        .flat_map(|name| [index_name(name), tables_name(name)])
        .collect();
    let mut changed = false;
    for name in &survey.names {
        let is_index = name.ends_with(INDEX_SUFFIX) || name.ends_with(TABLES_SUFFIX);
        let orphan = is_index && !sealed.contains(name);
        // Already renamed where it was counted.
        let uncounted = name == RESTART_FILE;
        let is_half_made = is_leftover(name) || name == HARD_STATE_NEW || name == KEPT_NEW;
        if orphan || uncounted || is_half_made {
            remove_if_there(disk, name)?;
            changed = true;
        }
    }
    if changed {
        disk.sync_folder()?;
    }
    Ok(())
}

fn collect_spares(
    disk: &dyn Disk,
    options: &LogOptions,
    names: &[String],
) -> io::Result<(Vec<Spare>, u64)> {
    let mut spares = Vec::new();
    let mut next_spare = 0;
    for name in names {
        let Some(number) = name.strip_prefix(SPARE_PREFIX) else {
            continue;
        };
        let Ok(number) = number.parse::<u64>() else {
            continue;
        };
        next_spare = next_spare.max(number.saturating_add(1));
        let file = disk.open(name)?;
        let len = file.len()?;
        if len == options.segment_bytes && spares.len() < SPARES_MAX {
            spares.push(Spare {
                name: name.clone(),
                file,
                len,
                recycled: true,
            });
        } else {
            remove_if_there(disk, name)?;
        }
    }
    Ok((spares, next_spare))
}

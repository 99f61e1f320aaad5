//! Making files ready ahead of time, on any thread: the next segment, zero-filled and durable under
//! a spare name, and the indexes of segments that were sealed.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::index_file::write_index;
use crate::mend::remove_if_there;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::table_index::{TABLES_NEW_SUFFIX, make_tables, tables_name, write_tables};
use crate::{PrepareError, index_file};

pub(crate) const SPARE_PREFIX: &str = "spare-";
/// How many spare files are kept.
pub(crate) const SPARES_MAX: usize = 2;
/// How many sealed segments may wait for their index; those beyond are scanned at the next open.
pub(crate) const INDEXES_MAX: usize = 1024;

/// A file that waits to become a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    pub name: String,
    pub file: Arc<dyn DiskFile>,
    pub len: u64,
    pub recycled: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Preparation {
    pub spares: Vec<Spare>,
    pub indexes: Vec<Arc<Segment>>,
    /// Sealed segments that wait for their index by table.
    pub tables: VecDeque<Arc<Segment>>,
    pub next_spare: u64,
    pub running: bool,
}

impl Preparation {
    pub fn spare_name(&mut self) -> String {
        let name = format!("{SPARE_PREFIX}{}", self.next_spare);
        self.next_spare += 1;
        name
    }

    /// Whether nothing waits but, perhaps, a next spare file.
    pub fn is_done(&self) -> bool {
        !self.spares.is_empty() && self.indexes.is_empty() && self.tables.is_empty()
    }

    /// Only these segments still get their indexes.
    pub fn retain(&mut self, is_kept: impl Fn(&Arc<Segment>) -> bool) {
        self.indexes.retain(&is_kept);
        self.tables.retain(&is_kept);
    }

    /// A sealed segment is to get an index by table.
    pub fn want_tables(&mut self, segment: &Arc<Segment>) {
        let is_waiting = self.tables.iter().any(|other| Arc::ptr_eq(other, segment));
        if !is_waiting && self.tables.len() < INDEXES_MAX {
            self.tables.push_back(Arc::clone(segment));
        }
    }
}

/// A job that makes files ready. Run it on any thread, or drop it. Only one exists at a time.
#[derive(Debug)]
pub struct Prepare {
    pub(crate) shared: Arc<Shared>,
    pub(crate) segment_bytes: u64,
}

impl Prepare {
    /// Does it. Blocks for as long as writing a segment of zeros takes.
    ///
    /// # Errors
    /// When the disk fails. The log goes on without what failed and does it itself when it must.
    pub fn run(self) -> Result<(), PrepareError> {
        let spare = {
            let mut preparation = self.shared.preparation.lock();
            let is_wanted = preparation.spares.is_empty();
            is_wanted.then(|| preparation.spare_name())
        };
        if let Some(name) = spare {
            let file = make_spare(&*self.shared.disk, &name, self.segment_bytes)?;
            file.sync_data()?;
            self.shared.disk.sync_folder()?;
            self.shared.preparation.lock().spares.push(Spare {
                name,
                file,
                len: self.segment_bytes,
                recycled: false,
            });
        }
        write_indexes(&self.shared)?;
        write_next_tables(&self.shared);
        Ok(())
    }
}

/// Makes a file of zeros; one that is cut short would take the room that was missing.
pub(crate) fn make_spare(disk: &dyn Disk, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
    disk.create(name, len).inspect_err(|_| {
        let _ = remove_if_there(disk, name);
    })
}

/// Writes the indexes that wait. One that failed waits on.
pub(crate) fn write_indexes(shared: &Shared) -> io::Result<()> {
    loop {
        let _files = shared.files.lock();
        let Some(segment) = shared.preparation.lock().indexes.first().cloned() else {
            return Ok(());
        };
        write_index(&*shared.disk, &segment)?;
        let mut preparation = shared.preparation.lock();
        preparation.indexes.retain(|s| !Arc::ptr_eq(s, &segment));
        preparation.want_tables(&segment);
    }
}

/// Writes the next index by table that waits: one, since the whole segment is read for it. One that
/// cannot be made is left out until the next start: readers do without it.
fn write_next_tables(shared: &Shared) {
    let Some(segment) = shared.preparation.lock().tables.front().cloned() else {
        return;
    };
    if let Err(error) = write_tables_of(shared, &segment) {
        let file = tables_name(&segment.name);
        tracing::warn!(file, %error, "an index by table cannot be made; the next start makes it");
    }
    let is_other = |other: &Arc<Segment>| !Arc::ptr_eq(other, &segment);
    shared.preparation.lock().tables.retain(is_other);
}

fn write_tables_of(shared: &Shared, segment: &Arc<Segment>) -> io::Result<()> {
    let is_it = |other: &Arc<Segment>| Arc::ptr_eq(other, segment);
    // The segment may be cut or dropped meanwhile; then it waits no more.
    let made = make_tables(&*shared.disk, segment);
    let _files = shared.files.lock();
    if !shared.preparation.lock().tables.iter().any(is_it) {
        return Ok(());
    }
    let name = tables_name(&segment.name);
    match made {
        Ok(Some(bytes)) => write_tables(&*shared.disk, segment, &bytes),
        // It gets none, and a doubtful one would be made anew for ever.
        Ok(None) => remove_if_there(&*shared.disk, &name),
        Err(error) => remove_if_there(&*shared.disk, &name).and(Err(error)),
    }
}

impl Drop for Prepare {
    fn drop(&mut self) {
        self.shared.preparation.lock().running = false;
    }
}

/// Whether a file is left over from a preparation that was cut short.
pub(crate) fn is_leftover(name: &str) -> bool {
    name.ends_with(index_file::INDEX_NEW_SUFFIX) || name.ends_with(TABLES_NEW_SUFFIX)
}

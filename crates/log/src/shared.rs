//! What the log's writer, its jobs and its readers share; and the hard state, which several of them
//! change.
//!
//! The locks of the files and of the hard state, in this order, are held while the disk is written:
//! only jobs, and calls that say that they block, take them. All other locks are held for moments.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use onelog_record::Index;
use parking_lot::{Mutex, RwLock};

use crate::StageError;
use crate::disk::Disk;
use crate::flush::Gate;
use crate::hard_state::{HardStateFile, Stored};
use crate::prepare::Preparation;
use crate::roll::Rolls;
use crate::segment::Segment;

#[derive(Debug)]
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub segments: RwLock<VecDeque<Arc<Segment>>>,
    pub durable: AtomicU64,
    /// Sealed segments whose files are open for reading, the longest unused in front.
    pub open_files: Mutex<VecDeque<Arc<Segment>>>,
    pub gate: Gate,
    pub hard: Mutex<Option<HardStateFile>>,
    pub rolls: Rolls,
    pub preparation: Mutex<Preparation>,
    /// Held while files of sealed or dropped segments, or their indexes, are made or removed.
    pub files: Mutex<()>,
    /// The number of the segment that the log began anew with; 0 = it never did in this process.
    pub first_number: AtomicU64,
    /// How often entries that readers may have seen were replaced: counted as the last part of such
    /// a change, with the segments locked for writing.
    pub changes: AtomicU64,
}

/// What a call of the disk answers once the log has stopped.
pub(crate) fn stopped() -> io::Error {
    io::Error::other(StageError::Stopped)
}

impl Shared {
    pub fn durable(&self) -> Index {
        Index(self.durable.load(Ordering::Acquire))
    }

    /// Changes the hard state, durably. A failure is final.
    pub fn save(&self, change: impl FnOnce(&mut Stored)) -> io::Result<()> {
        let mut hard = self.hard.lock();
        let Some(hard) = hard.as_mut().filter(|_| !self.gate.is_closed()) else {
            return Err(stopped());
        };
        self.save_in(hard, change)
    }

    /// The same under a lock that is held. Each save takes the watermark along: what is durable
    /// goes back only by a cut or a restart, which holds the lock.
    pub fn save_in(
        &self,
        hard: &mut HardStateFile,
        change: impl FnOnce(&mut Stored),
    ) -> io::Result<()> {
        let mut stored = hard.stored;
        stored.public.durable = self.durable();
        change(&mut stored);
        hard.save(stored).inspect_err(|_| self.gate.close())
    }
}

/// A job that saves how far the log is durable and committed. Run it on any thread, or drop it.
#[derive(Debug)]
pub struct SaveWatermark {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commit: Index,
}

impl SaveWatermark {
    /// Does it. Blocks.
    ///
    /// # Errors
    /// A failure of the disk is final: the log stages nothing more.
    pub fn run(self) -> io::Result<()> {
        let commit = self.commit;
        self.shared.save(|stored| {
            stored.public.commit = stored.public.commit.max(commit);
        })
    }
}

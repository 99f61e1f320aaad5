//! What is wrong with a page of the state's file, and what to do.
//!
//! redb takes no call after one that failed, and says of each later one only that it was refused. So
//! the first failure of a read is kept beside the tree, for all that read it.

use std::io;
use std::sync::{Arc, OnceLock};

use onelog_log::RESTORE_OR_REPLACE;

use crate::backend::STATE_FILE;

/// How a node that is alone gets its state again, before [`RESTORE_OR_REPLACE`].
pub(crate) const REBUILD: &str = "The log rebuilds it when it still reaches back to offset 0: move the folder 'state' away and start again; else,";

/// The state's file could not be read. Final for the tree that it was read for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadFault {
    /// A page is not as it was written.
    #[error(
        "the state file is damaged: page {page} of {STATE_FILE}, at byte {at}, is not as it was written (its checksum is {is:#010x}, not {written:#010x}). {REBUILD} {RESTORE_OR_REPLACE}"
    )]
    Damaged {
        /// Its number in the file.
        page: u64,
        /// Its first byte in the file.
        at: u64,
        is: u32,
        /// 0 where nothing was ever written.
        written: u32,
    },
    /// The disk failed, whatever the page holds.
    #[error(
        "reading the state file {STATE_FILE} at byte {at} failed: {source}; mend the disk, then start again"
    )]
    Disk { at: u64, source: Arc<io::Error> },
}

impl ReadFault {
    pub(crate) fn disk(at: u64, source: io::Error) -> Self {
        Self::Disk {
            at,
            source: Arc::new(source),
        }
    }

    /// The fault behind an error of redb, if it is one.
    pub(crate) fn of(error: &redb::Error) -> Option<&Self> {
        match error {
            redb::Error::Io(error) => error.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
}

impl From<ReadFault> for io::Error {
    fn from(fault: ReadFault) -> Self {
        let kind = match &fault {
            ReadFault::Damaged { .. } => io::ErrorKind::InvalidData,
            ReadFault::Disk { source, .. } => source.kind(),
        };
        Self::new(kind, fault)
    }
}

/// The first failure of a read of one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstFault(Arc<OnceLock<ReadFault>>);

impl FirstFault {
    pub(crate) fn note(&self, fault: &ReadFault) {
        self.0.get_or_init(|| fault.clone());
    }

    pub(crate) fn get(&self) -> Option<ReadFault> {
        self.0.get().cloned()
    }
}

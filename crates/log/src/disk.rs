//! The seam to the disk. One folder of flat files; the log and the state store both stand on it.
//!
//! Everything above may rely on exactly what is written here, and every implementation is run
//! through the same conformance tests.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// A folder of files on stable storage.
///
/// Two things are made durable apart: the *bytes* of a file by [`DiskFile::sync_data`], and the
/// *names* by [`Disk::sync_folder`].
///
/// - A name is a plain file name: callers MUST NOT use separators, `.` or `..`.
/// - After a crash, names created, renamed or removed since the last `sync_folder` that ended well
///   MAY each be in their old or their new state. Implementations MUST NOT lose any other name.
/// - An implementation MUST be usable from several threads at once.
/// - A call that failed MUST be treated by callers as having had any part of its effect.
pub trait Disk: Send + Sync + Debug {
    /// The names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing. MUST answer `NotFound` when there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a new file of `len` zero bytes. MUST answer `AlreadyExists` when the name is taken.
    ///
    /// The zeros MUST be written, not left as a hole: overwriting written blocks needs no metadata
    /// flush, which is the point of writing them ahead. Neither bytes nor name are durable before
    /// `sync_data` and `sync_folder`.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, replacing what had it. Atomic with respect to crashes. Handles
    /// stay good.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. MUST answer `NotFound` when there is none. Handles stay good.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// How many bytes can still be written, as far as that is known. What is written meanwhile by
    /// others is not held back for the caller.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Makes all changes of names so far durable. A failed one MUST NOT be tried again.
    fn sync_folder(&self) -> io::Result<()>;
}

/// Whether a call failed because there was no room on the disk. What was written before is as it was.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// One open file.
///
/// - Reads see every write that has returned, flushed or not.
/// - Writes of several threads to disjoint ranges MUST both take effect, even within one sector.
/// - After a crash, each sector written since the last `sync_data` MAY hold any state that it had
///   since then. Sectors MUST NOT be affected that were not written.
#[allow(clippy::len_without_is_empty)]
pub trait DiskFile: Send + Sync + Debug {
    /// Reads at byte `at`; answers how many bytes were read. Fewer than requested only at the end of
    /// the file.
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at byte `at`, growing the file where needed.
    fn write_all_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes every write that returned before this call durable, the file's length included.
    ///
    /// After a failure the written bytes MAY be lost although a later `sync_data` succeeds:
    /// callers MUST NOT try again, they stop.
    fn sync_data(&self) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file or grows it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

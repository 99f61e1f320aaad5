//! A disk on which a test watches each call, and may make it wait.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use onelog_log::{Disk, DiskFile, SimulatedDisk};

/// Called on the thread that makes a call, with the call's name and the file's.
pub trait Watch: Debug + Send + Sync + 'static {
    fn before(&self, _call: &'static str, _file: &str) {}
    /// The call has not failed.
    fn after(&self, _call: &'static str, _file: &str) {}
}

#[derive(Debug)]
pub struct WatchedDisk<W> {
    pub inner: SimulatedDisk,
    pub watch: Arc<W>,
}

#[derive(Debug)]
struct WatchedFile<W> {
    inner: Arc<dyn DiskFile>,
    watch: Arc<W>,
    name: String,
}

impl<W: Watch> WatchedDisk<W> {
    fn file(&self, name: &str, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile {
            inner,
            watch: Arc::clone(&self.watch),
            name: name.to_owned(),
        })
    }
}

fn watched<T>(
    watch: &impl Watch,
    call: &'static str,
    file: &str,
    made: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    watch.before(call, file);
    let done = made()?;
    watch.after(call, file);
    Ok(done)
}

impl<W: Watch> Disk for WatchedDisk<W> {
    fn list(&self) -> io::Result<Vec<String>> {
        watched(&*self.watch, "list", "", || self.inner.list())
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = watched(&*self.watch, "open", name, || self.inner.open(name))?;
        Ok(self.file(name, file))
    }
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let make = || self.inner.create(name, len);
        let file = watched(&*self.watch, "create", name, make)?;
        Ok(self.file(name, file))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let rename = || self.inner.rename(from, to);
        watched(&*self.watch, "rename", to, rename)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        watched(&*self.watch, "remove", name, || self.inner.remove(name))
    }
    fn sync_folder(&self) -> io::Result<()> {
        watched(&*self.watch, "sync_folder", "", || self.inner.sync_folder())
    }
}

impl<W: Watch> WatchedFile<W> {
    fn watched<T>(
        &self,
        call: &'static str,
        made: impl FnOnce(&dyn DiskFile) -> io::Result<T>,
    ) -> io::Result<T> {
        watched(&*self.watch, call, &self.name, || made(&*self.inner))
    }
}

impl<W: Watch> DiskFile for WatchedFile<W> {
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        self.watched("read_at", |file| file.read_at(at, out))
    }
    fn write_all_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.watched("write_all_at", |file| file.write_all_at(at, bytes))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.watched("sync_data", |file| file.sync_data())
    }
    fn len(&self) -> io::Result<u64> {
        self.watched("len", |file| file.len())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watched("set_len", |file| file.set_len(len))
    }
}

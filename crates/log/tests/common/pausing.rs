//! A disk on which one read can be stopped, so that others do something in the middle of it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use onelog_log::{Disk, DiskFile, SimulatedDisk};

/// When the read that is stopped reads its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    BeforeReading,
    AfterReading,
}

#[derive(Debug)]
struct Stop {
    pause: Pause,
    reached: SyncSender<()>,
    go: Receiver<()>,
}

#[derive(Clone, Debug)]
pub struct PausingDisk {
    disk: SimulatedDisk,
    next: Arc<Mutex<Option<Stop>>>,
}

/// The other end of a read that is stopped.
#[derive(Debug)]
pub struct Stopped {
    pub reached: Receiver<()>,
    pub go: SyncSender<()>,
}

impl PausingDisk {
    pub fn new(disk: SimulatedDisk) -> Self {
        Self {
            disk,
            next: Arc::default(),
        }
    }

    /// The next read of a file stops until it is let go.
    pub fn stop_next(&self, pause: Pause) -> Stopped {
        let (reached, has_reached) = sync_channel(1);
        let (let_go, go) = sync_channel(1);
        *self.next.lock().unwrap() = Some(Stop { pause, reached, go });
        Stopped {
            reached: has_reached,
            go: let_go,
        }
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(PausingFile {
            file,
            next: Arc::clone(&self.next),
        })
    }
}

impl Disk for PausingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.open(name)?))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.create(name, len)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }
}

#[derive(Debug)]
struct PausingFile {
    file: Arc<dyn DiskFile>,
    next: Arc<Mutex<Option<Stop>>>,
}

impl DiskFile for PausingFile {
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let stop = self.next.lock().unwrap().take();
        let Some(stop) = stop else {
            return self.file.read_at(at, out);
        };
        let wait = || {
            stop.reached.send(()).unwrap();
            stop.go.recv().unwrap();
        };
        if stop.pause == Pause::BeforeReading {
            wait();
            return self.file.read_at(at, out);
        }
        let count = self.file.read_at(at, out);
        wait();
        count
    }

    fn write_all_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(at, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

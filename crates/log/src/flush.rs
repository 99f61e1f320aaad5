//! Flushes: the write and the `fdatasync` of one group, on any thread, and before them the roll to
//! the group's segment where it has no file yet; and a small pool of threads that keeps two to four
//! of them in flight.
//!
//! A failed flush is final, and a flush that panics has failed. The first failure closes the gate,
//! and no later flush writes.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use onelog_record::{Index, panic_message};

use crate::FlushError;
use crate::disk::DiskFile;
use crate::planted::{self, Bug};
use crate::segment::Segment;
use crate::shared::Shared;

/// The most threads of a pool.
pub const FLUSH_THREADS_MAX: usize = 4;
/// How many flushes wait in a pool before `push` blocks.
const QUEUE_MAX: usize = 64;

/// Closed for good by the first failure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub fn close(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The frames of one group in one segment, on their way to the disk.
#[derive(Debug)]
#[must_use = "a flush that is never run holds back every later one"]
pub struct Flush {
    /// Its number. Numbers ascend in the order in which the entries were staged.
    pub number: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) segment: Arc<Segment>,
    pub(crate) at: u64,
    pub(crate) frames: Vec<u8>,
    pub(crate) last_index: Index,
    pub(crate) has_run: AtomicBool,
}

impl Flush {
    /// Writes the frames and makes them durable. Blocks.
    ///
    /// # Errors
    /// Every error is final: the log stages nothing more, and no other flush writes. A second run
    /// is refused, for it would be a retry.
    pub fn run(&self) -> Result<(), FlushError> {
        if self.has_run.swap(true, Ordering::SeqCst) || self.shared.gate.is_closed() {
            return Err(FlushError::Stopped);
        }
        let result = self.write();
        if result.is_err() {
            self.shared.gate.close();
        }
        result
    }

    fn write(&self) -> Result<(), FlushError> {
        let file = self.file()?;
        file.write_all_at(self.at, &self.frames)
            .map_err(|source| FlushError::Write {
                file: self.segment.name.clone(),
                at: self.at,
                bytes: self.frames.len(),
                source,
            })?;
        if planted::is(Bug::AcknowledgeBeforeFlush) {
            return Ok(());
        }
        file.sync_data().map_err(|source| FlushError::Sync {
            file: self.segment.name.clone(),
            source,
        })
    }

    /// The segment's file, made where it is not made yet.
    fn file(&self) -> Result<Arc<dyn DiskFile>, FlushError> {
        self.shared.roll_to(self.segment.header.number)?;
        self.segment
            .file(&*self.shared.disk)
            .map_err(|source| FlushError::Segment {
                file: self.segment.name.clone(),
                source,
            })
    }

    /// How many bytes it writes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// The index of its last entry.
    #[must_use]
    pub const fn last_index(&self) -> Index {
        self.last_index
    }
}

/// Threads that run flushes. Dropping it runs what was pushed and joins them.
#[derive(Debug)]
pub struct FlushPool {
    queue: Option<Sender<Flush>>,
    threads: Vec<JoinHandle<()>>,
}

impl FlushPool {
    /// Starts 1 to 4 threads. `on_done` is called on them, once for each flush, in any order, with
    /// the flush's number, its result and the time that it took.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        threads: usize,
        on_done: impl Fn(u64, Result<(), FlushError>, Duration) + Send + Sync + Clone + 'static,
    ) -> io::Result<Self> {
        let (queue, waiting) = crossbeam_channel::bounded::<Flush>(QUEUE_MAX);
        let threads = (0..threads.clamp(1, FLUSH_THREADS_MAX))
            .map(|number| {
                let waiting = waiting.clone();
                let on_done = on_done.clone();
                std::thread::Builder::new()
                    .name(format!("flush-{number}"))
                    .spawn(move || run_all(&waiting, &on_done))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            queue: Some(queue),
            threads,
        })
    }

    /// Gives a flush to the pool. Blocks while too many are waiting.
    pub fn push(&self, flush: Flush) {
        let Some(queue) = &self.queue else {
            return;
        };
        // The threads hold receivers until the sender is dropped; a failed send means that all of
        // them have panicked in `on_done`, and then nothing may be acknowledged any more.
        if let Err(unsent) = queue.send(flush) {
            unsent.0.shared.gate.close();
        }
    }
}

fn run_all(waiting: &Receiver<Flush>, on_done: &impl Fn(u64, Result<(), FlushError>, Duration)) {
    for flush in waiting {
        let start = Instant::now();
        let run = catch_unwind(AssertUnwindSafe(|| flush.run()));
        let result = run.unwrap_or_else(|panic| {
            flush.shared.gate.close();
            Err(panicked(panic.as_ref()))
        });
        on_done(flush.number, result, start.elapsed());
    }
}

fn panicked(panic: &(dyn Any + Send)) -> FlushError {
    let message = panic_message(panic).unwrap_or("without a message");
    FlushError::Panicked {
        thread: std::thread::current().name().unwrap_or("?").to_owned(),
        message: message.to_owned(),
    }
}

impl Drop for FlushPool {
    fn drop(&mut self) {
        drop(self.queue.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a flush thread panicked");
            }
        }
    }
}

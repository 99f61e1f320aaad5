//! A thread that runs one job after the other, beside the engine.

use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};

/// How many jobs may wait. The driver has at most a few outstanding that must fit.
const JOBS_MAX: usize = 16;
/// How many of the places stay free for those.
const JOBS_KEPT: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
pub(crate) struct Worker {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread whose work can wait: where cores are short, commits go first.
    pub(crate) fn start_nice(name: &str, niceness: i32) -> std::io::Result<Self> {
        let worker = Self::start(name)?;
        worker.push(move || {
            // On Linux the priority belongs to the thread. A refusal only costs latency.
            let thread = rustix::thread::gettid();
            if let Err(error) = rustix::process::setpriority_process(Some(thread), niceness) {
                tracing::debug!(%error, "a worker keeps its priority");
            }
        });
        Ok(worker)
    }

    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        Self::start_with(name, JOBS_MAX)
    }

    /// Starts a thread for which at most so many jobs may wait.
    pub(crate) fn start_with(name: &str, jobs_max: usize) -> std::io::Result<Self> {
        let (jobs, waiting) = bounded::<Job>(jobs_max);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                for job in waiting {
                    job();
                }
            })?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Hands a job over; `false` when the thread is gone or too much waits.
    pub(crate) fn push(&self, job: impl FnOnce() + Send + 'static) -> bool {
        self.jobs
            .as_ref()
            .is_some_and(|jobs| jobs.try_send(Box::new(job)).is_ok())
    }

    /// Hands over a job that may as well not be done here: places are kept for others.
    pub(crate) fn push_if_room(&self, job: impl FnOnce() + Send + 'static) -> bool {
        let has_room = (self.jobs.as_ref()).is_some_and(|jobs| jobs.len() < JOBS_MAX - JOBS_KEPT);
        has_room && self.push(job)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A job that panicked has been reported by its own completion going missing.
            let _ = thread.join();
        }
    }
}

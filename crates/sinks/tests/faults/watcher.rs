//! A reader that looks at both tables again and again while everything fails around it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use crate::rig::{Rig, SUM};

/// Runs until it is dropped; panics there if it ever saw half a transaction.
pub struct Watcher<'scope> {
    stop: Arc<AtomicBool>,
    seen: Arc<AtomicU64>,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> Watcher<'scope> {
    pub fn start(scope: &'scope std::thread::Scope<'scope, '_>, rig: &'scope dyn Rig) -> Self {
        let (stop, seen) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let thread = scope.spawn({
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || watch(rig, &stop, &seen)
        });
        Self {
            stop,
            seen,
            thread: Some(thread),
        }
    }

    /// Ends it; the number of readings that succeeded.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        self.seen.load(Ordering::SeqCst)
    }
}

fn watch(rig: &dyn Rig, stop: &AtomicBool, seen: &AtomicU64) {
    let Some(mut auditor) = rig.connect() else {
        return;
    };
    while !stop.load(Ordering::SeqCst) {
        match auditor.sum() {
            Ok(sum) => {
                assert_eq!(sum, SUM, "a reader saw half a transaction");
                seen.fetch_add(1, Ordering::SeqCst);
            }
            // The store is down: connecting anew fails at once or when it is up again.
            Err(_) => auditor = rig.connect().expect("what could be read once"),
        }
    }
}

//! The memory that all sinks of a node share for what they have unpacked of the log and not yet
//! written to their stores.
//!
//! A sink takes from it before it unpacks, and gives back when its batch is in the store. Those
//! that wait are served in the order of asking, so a large batch is not passed by small ones for ever. A
//! sink holds one piece at a time and asks for nothing while it holds it, so no two can wait for each
//! other. What is larger than everything there is counts as everything: it passes alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much it is unless the program says otherwise.
pub const SINKS_MEMORY_BYTES: u64 = 256 << 20;
/// The least that it can be.
pub const SINKS_MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Bytes are counted in such pieces, because there are not so many permits.
const PIECE_BYTES: u64 = 1 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pieces: Arc<Semaphore>,
    pieces_all: u32,
    /// What is held, in bytes; pieces that are promised to one that waits are not in it.
    held: AtomicU64,
}

impl Memory {
    pub(crate) fn new(bytes: u64) -> Self {
        let pieces = bytes.max(SINKS_MEMORY_BYTES_MIN) / PIECE_BYTES;
        let most = u64::from(u32::MAX).min(Semaphore::MAX_PERMITS as u64);
        // Above some terabytes it is no bound any more.
        let pieces_all = u32::try_from(pieces.min(most)).unwrap_or(u32::MAX);
        Self(Arc::new(Shared {
            pieces: Arc::new(Semaphore::new(pieces_all as usize)),
            pieces_all,
            held: AtomicU64::new(0),
        }))
    }

    /// Waits until so many bytes are free, and takes them.
    pub(crate) async fn take(&self, bytes: usize) -> Held {
        let pieces = self.pieces(bytes);
        let permit = Arc::clone(&self.0.pieces).acquire_many_owned(pieces).await;
        Held::new(self, permit.ok())
    }

    /// How many bytes are held now.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    pub(crate) fn all_bytes(&self) -> u64 {
        u64::from(self.0.pieces_all) * PIECE_BYTES
    }

    fn pieces(&self, bytes: usize) -> u32 {
        let pieces = (bytes as u64).div_ceil(PIECE_BYTES);
        u32::try_from(pieces).map_or(self.0.pieces_all, |pieces| pieces.min(self.0.pieces_all))
    }
}

/// A piece of the memory, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Memory,
    /// Always there: the semaphore is never closed.
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    fn new(memory: &Memory, permit: Option<OwnedSemaphorePermit>) -> Self {
        let held = Self {
            memory: memory.clone(),
            permit,
        };
        held.memory
            .0
            .held
            .fetch_add(held.bytes(), Ordering::Relaxed);
        held
    }

    fn bytes(&self) -> u64 {
        let pieces = self.permit.as_ref().map_or(0, |p| p.num_permits());
        pieces as u64 * PIECE_BYTES
    }

    /// Whether so many bytes may be unpacked.
    pub(crate) fn covers(&self, bytes: usize) -> bool {
        bytes as u64 <= self.bytes() || self.bytes() == self.memory.all_bytes()
    }

    /// Gives back what is more than so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let wanted = self.memory.pieces(bytes) as usize;
        if let Some(permit) = &mut self.permit {
            let surplus = permit.split(permit.num_permits().saturating_sub(wanted));
            let less = surplus.as_ref().map_or(0, |p| p.num_permits()) as u64 * PIECE_BYTES;
            // Counted before it is given back: one that waits takes it, and counts it, at once.
            self.memory.0.held.fetch_sub(less, Ordering::Relaxed);
            drop(surplus);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory
            .0
            .held
            .fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Poll, Waker};
    use std::{hint, thread};

    use super::*;

    const MIB: usize = 1 << 20;

    fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_large_piece_is_served_before_small_ones_that_came_later() {
        let memory = Memory::new(8 * MIB as u64);
        let mut first = poll(pin!(memory.take(6 * MIB))).unwrap();
        let (mut large, mut small) = (pin!(memory.take(8 * MIB)), pin!(memory.take(MIB)));
        assert!(poll(large.as_mut()).is_none());
        assert!(
            poll(small.as_mut()).is_none(),
            "2 MiB are free, and promised"
        );
        assert_eq!(memory.held_bytes(), 6 * MIB as u64);
        first.shrink_to(MIB);
        assert_eq!(memory.held_bytes(), MIB as u64);
        assert!(poll(large.as_mut()).is_none());
        drop(first);
        let large = poll(large.as_mut()).unwrap();
        assert_eq!(memory.held_bytes(), memory.all_bytes());
        assert!(poll(small.as_mut()).is_none());
        drop(large);
        drop(poll(small.as_mut()).unwrap());
        assert_eq!(memory.held_bytes(), 0);
    }

    #[test]
    fn what_is_larger_than_everything_passes_alone() {
        let memory = Memory::new(2 * MIB as u64);
        let small = poll(pin!(memory.take(1))).unwrap();
        assert!(small.covers(1) && !small.covers(MIB));
        let mut huge = pin!(memory.take(100 * MIB));
        assert!(poll(huge.as_mut()).is_none());
        drop(small);
        let huge = poll(huge.as_mut()).unwrap();
        assert!(huge.covers(100 * MIB));
        assert!(poll(pin!(memory.take(1))).is_none());
    }

    #[test]
    fn no_moment_counts_more_than_there_is() {
        // Given one that takes everything there is and gives a part of it back early,
        const ROUNDS: usize = 100_000;
        let memory = Memory::new(2 * MIB as u64);
        let ended = AtomicBool::new(false);
        thread::scope(|threads| {
            threads.spawn(|| {
                for _ in 0..ROUNDS {
                    let mut all = pin!(memory.take(2 * MIB));
                    let mut held = loop {
                        match poll(all.as_mut()) {
                            Some(held) => break held,
                            None => hint::spin_loop(),
                        }
                    };
                    held.shrink_to(MIB);
                }
                ended.store(true, Ordering::Relaxed);
            });
            // when another takes that part as soon as it is there,
            while !ended.load(Ordering::Relaxed) {
                let part = poll(pin!(memory.take(MIB)));
                // then no moment has more than there is.
                assert!(memory.held_bytes() <= memory.all_bytes(), "{part:?}");
            }
        });
        assert_eq!(memory.held_bytes(), 0);
    }

    #[test]
    fn one_that_no_longer_waits_holds_nothing_up() {
        let memory = Memory::new(2 * MIB as u64);
        let held = poll(pin!(memory.take(MIB))).unwrap();
        {
            let mut given_up = pin!(memory.take(2 * MIB));
            assert!(poll(given_up.as_mut()).is_none());
        }
        assert!(poll(pin!(memory.take(MIB))).is_some());
        drop(held);
    }
}

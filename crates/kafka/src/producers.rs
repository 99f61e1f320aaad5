//! What is remembered of idempotent producers: the last batches of each, by table.
//!
//! A repeated batch is answered with the offset that it got. What is here is lost with the process,
//! and another node of a cluster does not have it; there the log's own window of transaction ids knows
//! the batch, whose id is made of the same numbers.

use std::collections::{HashMap, VecDeque};

use onelog_record::{Offset, TableId, TxnId};

use crate::options::{PRODUCER_BATCHES, PRODUCERS_MAX};

/// Which batch of a producer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub producer: i64,
    pub epoch: i16,
    /// The number of its first record.
    pub base: i32,
    /// How many records it has, at least one.
    pub records: i32,
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one, or nothing is known of its producer.
    Commit(TxnId),
    /// It was committed before, at this offset.
    Repeated(Offset),
    /// It is older than what is remembered, and was committed.
    TooOld,
    /// Others are missing before it.
    OutOfOrder,
    /// Its producer was replaced by a later epoch.
    Fenced,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// How often its numbers began anew from 0.
    rounds: u64,
    next: i32,
    batches: VecDeque<(Sequence, Offset)>,
    used: u64,
}

/// The producers that are remembered.
#[derive(Debug, Default)]
pub struct Producers {
    known: HashMap<(i64, TableId), Producer>,
    clock: u64,
}

impl Producers {
    pub fn judge(&mut self, log_id: u128, table: TableId, sequence: Sequence) -> Verdict {
        self.clock += 1;
        let Some(producer) = self.known.get_mut(&(sequence.producer, table)) else {
            return Verdict::Commit(id(log_id, table, sequence, 0));
        };
        producer.used = self.clock;
        match sequence.epoch.cmp(&producer.epoch) {
            std::cmp::Ordering::Less => return Verdict::Fenced,
            std::cmp::Ordering::Greater => {
                return match sequence.base {
                    0 => Verdict::Commit(id(log_id, table, sequence, 0)),
                    _ => Verdict::OutOfOrder,
                };
            }
            std::cmp::Ordering::Equal => {}
        }
        if sequence.base == producer.next {
            let rounds = producer.rounds;
            return Verdict::Commit(id(log_id, table, sequence, rounds));
        }
        let same = |(known, _): &&(Sequence, Offset)| *known == sequence;
        if let Some((_, offset)) = producer.batches.iter().find(same) {
            return Verdict::Repeated(*offset);
        }
        // Numbers begin anew behind the highest: the nearer half lies before.
        let behind = producer.next.wrapping_sub(sequence.base) & i32::MAX;
        match behind <= i32::MAX / 2 {
            true => Verdict::TooOld,
            false => Verdict::OutOfOrder,
        }
    }

    /// A batch is in the log.
    pub fn committed(&mut self, table: TableId, sequence: Sequence, at: Offset) {
        self.clock += 1;
        let used = self.clock;
        if self.known.len() >= PRODUCERS_MAX {
            self.forget_half();
        }
        let key = (sequence.producer, table);
        let producer = self.known.entry(key).or_insert_with(|| Producer {
            epoch: sequence.epoch,
            rounds: 0,
            next: 0,
            batches: VecDeque::new(),
            used,
        });
        if producer.epoch != sequence.epoch {
            producer.epoch = sequence.epoch;
            producer.rounds = 0;
            producer.batches.clear();
        }
        let next = sequence.base.wrapping_add(sequence.records) & i32::MAX;
        producer.rounds += u64::from(next < sequence.base);
        producer.next = next;
        producer.used = used;
        if producer.batches.len() >= PRODUCER_BATCHES {
            producer.batches.pop_front();
        }
        producer.batches.push_back((sequence, at));
    }

    /// Forgets the half that was used longest ago.
    fn forget_half(&mut self) {
        let mut used: Vec<u64> = self.known.values().map(|producer| producer.used).collect();
        let middle = used.len() / 2;
        let (_, middle, _) = used.select_nth_unstable(middle);
        let middle = *middle;
        self.known.retain(|_, producer| producer.used >= middle);
    }
}

/// The id of the transaction of a batch: a UUID of version 8, made of BLAKE3 over
/// `log_id [16] | producer i64 | epoch i16 | table u32 | base i32 | rounds u64`, big-endian.
fn id(log_id: u128, table: TableId, sequence: Sequence, rounds: u64) -> TxnId {
    let mut hash = blake3::Hasher::new();
    hash.update(&log_id.to_be_bytes());
    hash.update(&sequence.producer.to_be_bytes());
    hash.update(&sequence.epoch.to_be_bytes());
    hash.update(&table.0.to_be_bytes());
    hash.update(&sequence.base.to_be_bytes());
    hash.update(&rounds.to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    TxnId(
        uuid::Builder::from_custom_bytes(bytes)
            .into_uuid()
            .as_u128(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(1024);

    fn sequence(base: i32, records: i32) -> Sequence {
        Sequence {
            producer: 7,
            epoch: 1,
            base,
            records,
        }
    }

    #[test]
    fn the_last_five_batches_are_recognised() {
        let mut producers = Producers::default();
        for number in 0..7 {
            let batch = sequence(number * 10, 10);
            assert!(matches!(
                producers.judge(1, TABLE, batch),
                Verdict::Commit(_)
            ));
            producers.committed(TABLE, batch, Offset(number as u64));
        }
        let mut judge = |base, records| producers.judge(1, TABLE, sequence(base, records));
        for number in 2..7 {
            assert_eq!(
                judge(number * 10, 10),
                Verdict::Repeated(Offset(number as u64))
            );
        }
        assert_eq!(judge(10, 10), Verdict::TooOld);
        assert_eq!(
            judge(60, 9),
            Verdict::TooOld,
            "another batch than the one before"
        );
        assert_eq!(judge(80, 10), Verdict::OutOfOrder);
        assert!(matches!(judge(70, 10), Verdict::Commit(_)));
    }

    #[test]
    fn a_later_epoch_begins_at_0_and_fences_the_earlier_one() {
        let mut producers = Producers::default();
        producers.committed(TABLE, sequence(0, 1), Offset(0));
        let with_epoch = |epoch, base| Sequence {
            epoch,
            ..sequence(base, 1)
        };
        assert_eq!(producers.judge(1, TABLE, with_epoch(0, 1)), Verdict::Fenced);
        assert_eq!(
            producers.judge(1, TABLE, with_epoch(2, 1)),
            Verdict::OutOfOrder
        );
        assert!(matches!(
            producers.judge(1, TABLE, with_epoch(2, 0)),
            Verdict::Commit(_)
        ));
    }

    #[test]
    fn numbers_begin_anew_behind_the_highest_with_other_ids() {
        let mut producers = Producers::default();
        let first = producers.judge(1, TABLE, sequence(0, 1));
        let last = sequence(i32::MAX, 1);
        producers.committed(TABLE, last, Offset(0));
        let anew = producers.judge(1, TABLE, sequence(0, 1));
        assert!(matches!(anew, Verdict::Commit(_)));
        assert_ne!(first, anew);
        assert_eq!(
            producers.judge(1, TABLE, last),
            Verdict::Repeated(Offset(0))
        );
    }

    #[test]
    fn the_id_of_a_batch_never_changes() {
        let id = id(1, TABLE, sequence(3, 2), 0);
        assert_eq!(id.to_string(), "2b8cb7e0-b96d-85d2-b5cf-6862a9743ece");
    }
}

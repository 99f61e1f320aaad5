//! Rows that are written again outside the order of the log: repairs and replays, from the log's
//! state where the store is, so that an older image never replaces a newer one.

use bytes::Bytes;
use onelog::{Offset, Position, Snapshot};
use onelog_mapping::{Plan, show_key};
use onelog_store::{
    Batch, Change, LogPlace, RejectedRow, Store, StoreError, VerifyError, failpoint,
};

use crate::error::SinkError;
use crate::feed::Feed;
use crate::parking::{Parked, parked};
use crate::request::{Keys, Replay, Replayed, RequestError};
use crate::session_end::SessionEnd;

/// How many rows, and about how many bytes of them, are written again in one step, at most.
const ROWS_MAX: usize = 1000;
const BYTES_MAX: usize = 8 << 20;
/// How often a replay tries the refused ones again, as long as some are taken: they may refer to each
/// other.
const ROUNDS_MAX: u32 = 16;

/// Keys of the log with the numbers of their mappings.
type KeySlice = [(usize, Bytes)];

impl Feed {
    /// Writes the rows of keys again as the log has them at the store's position.
    pub(crate) fn repair(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        at: Option<Position>,
        keys: &Keys,
    ) -> Result<u64, RequestError> {
        let snapshot = self.snapshot_at(at)?;
        let at = self.place(snapshot.position())?;
        let mut written = 0;
        let mut rest = &keys[..];
        while !rest.is_empty() {
            let is_parked = |mapping, key: &Bytes| self.parked.contains(mapping, key);
            let (images, part) = Images::of(self, plan, &snapshot, rest, is_parked)?;
            rest = &rest[part.len()..];
            if let Some(first) = images.rejected.first() {
                if !self.parks() {
                    let of = &plan.mappings[first.mapping];
                    let error = StoreError::refused(of, &first.key, first.offset, &first.what);
                    return Err(error.into());
                }
                self.park(plan, &images.rejected)?;
            }
            let mut batch = images.into_batch(plan, at);
            self.apply_accepted(plan, store, &mut batch)?;
            written += batch.rows() as u64;
        }
        store.publish()?;
        Ok(written)
    }

    /// Gives the store the newest images of parked keys at its position.
    pub(crate) fn replay(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        at: Option<Position>,
        which: &Replay,
    ) -> Result<Replayed, RequestError> {
        let snapshot = self.snapshot_at(at)?;
        let mut not_parked = Vec::new();
        let keys: Keys = match which {
            Replay::All => self.parked.all(),
            Replay::Keys(wanted) => wanted
                .iter()
                .filter_map(|(into, key)| {
                    let mapping = plan.mappings.iter().position(|m| m.into == *into);
                    let known = mapping.filter(|mapping| self.parked.contains(*mapping, key));
                    if known.is_none() {
                        not_parked.push((into.clone(), show_key(key)));
                    }
                    Some((known?, key.clone()))
                })
                .collect(),
        };
        let (replayed, refused) = self.replay_keys(plan, store, &snapshot, &keys)?;
        let of_refused = |entry: &Parked| {
            refused.iter().any(|(mapping, key)| {
                plan.mappings[*mapping].into == entry.into && *key == entry.key_bytes
            })
        };
        let known = parked(&self.node, &self.definition.name);
        let known = known.map_err(|error| SinkError::Read { cause: error })?;
        Ok(Replayed {
            sink: self.definition.name.clone(),
            position: snapshot.position(),
            replayed,
            remaining: known.into_iter().filter(of_refused).collect(),
            not_parked,
        })
    }

    /// Answers how many keys the store has taken, and those that it refuses whatever the others are.
    fn replay_keys(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        snapshot: &Snapshot,
        keys: &[(usize, Bytes)],
    ) -> Result<(u64, Keys), RequestError> {
        let (mut replayed, mut refused) = self.replay_once(plan, store, snapshot, keys)?;
        let mut taken = replayed;
        for _ in 1..ROUNDS_MAX {
            if taken == 0 || refused.is_empty() {
                break;
            }
            (taken, refused) = self.replay_once(plan, store, snapshot, &refused)?;
            replayed += taken;
        }
        // The caller reads now, and the next batch may come late.
        store.publish()?;
        Ok((replayed, refused))
    }

    fn replay_once(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        snapshot: &Snapshot,
        keys: &[(usize, Bytes)],
    ) -> Result<(u64, Keys), RequestError> {
        let (mut replayed, mut refused) = (0, Vec::new());
        let at = self.place(snapshot.position())?;
        let mut rest = keys;
        while !rest.is_empty() {
            let (mut images, part) = Images::of(self, plan, snapshot, rest, |_, _| false)?;
            rest = &rest[part.len()..];
            let mut rejected = std::mem::take(&mut images.rejected);
            let mut batch = images.into_batch(plan, at);
            rejected.extend(batch.rejected_rows(plan));
            batch.leave_out(&rejected);
            while batch.rows() > 0 {
                failpoint::hit(&self.definition.name, "attempt");
                let Err(error) = store.apply(&batch) else {
                    break;
                };
                let StoreError::Refused(refusal) = &error else {
                    return Err(error.into());
                };
                let more = batch.refused(plan, refusal);
                if more.is_empty() {
                    return Err(error.into());
                }
                batch.leave_out(&more);
                rejected.extend(more);
            }
            failpoint::hit(&self.definition.name, "after_replay");
            self.park(plan, &rejected)?;
            let taken: Keys = part
                .iter()
                .filter(|(of, key)| !rejected.iter().any(|u| u.mapping == *of && u.key == *key))
                .cloned()
                .collect();
            let released = self.parked.release(&self.node, plan, &taken, at.position);
            self.progress.set_parked(self.parked.len());
            released?;
            replayed += taken.len() as u64;
            refused.extend(
                rejected
                    .into_iter()
                    .map(|rejected| (rejected.mapping, rejected.key)),
            );
        }
        Ok((replayed, refused))
    }

    /// Replays what was replayed before at a position that this copy of the store has not passed.
    pub(crate) fn repeat_replays(
        &mut self,
        plan: &Plan,
        store: &mut dyn Store,
        at: Option<Position>,
    ) -> Result<(), SessionEnd> {
        if self.parked.to_repeat().is_empty() {
            return Ok(());
        }
        // Too far behind to read the log's state there: the next batches bring it nearer.
        let Ok(snapshot) = self.snapshot_at(at) else {
            return Ok(());
        };
        let keys = self.parked.to_repeat().to_vec();
        match self.replay_keys(plan, store, &snapshot, &keys) {
            Ok(_) => Ok(()),
            Err(failed) => Err(failed.into_session_end()),
        }
    }
}

/// The images of keys at one position, by mapping.
#[derive(Default)]
struct Images {
    changes: Vec<(usize, Change)>,
    rejected: Vec<RejectedRow>,
    bytes: usize,
}

impl Images {
    /// The images of as many of these keys as one step takes, without those that are left out; and
    /// the keys.
    fn of<'k>(
        feed: &Feed,
        plan: &Plan,
        snapshot: &Snapshot,
        keys: &'k KeySlice,
        leave_out: impl Fn(usize, &Bytes) -> bool,
    ) -> Result<(Self, &'k KeySlice), SinkError> {
        let mut images = Self::default();
        let mut count = 0;
        for (mapping, key) in keys.iter().take(ROWS_MAX) {
            if images.bytes >= BYTES_MAX {
                break;
            }
            if feed.is_leaving() {
                return Err(VerifyError::Stopped.into());
            }
            if !leave_out(*mapping, key) {
                images.add(plan, snapshot, *mapping, key)?;
            }
            count += 1;
        }
        Ok((images, &keys[..count]))
    }

    fn add(
        &mut self,
        plan: &Plan,
        snapshot: &Snapshot,
        mapping: usize,
        key: &Bytes,
    ) -> Result<(), SinkError> {
        let of = &plan.mappings[mapping];
        let found = snapshot
            .get(of.table, key)
            .map_err(|cause| SinkError::Read { cause })?;
        self.bytes += found.as_ref().map_or(0, |found| found.value.len());
        let mut change = match found {
            Some(found) => Change {
                key: key.clone(),
                offset: found.version,
                value: Some(found.value),
            },
            // The last record below the position is at least as new as the one that deleted it.
            None => Change {
                key: key.clone(),
                offset: Offset(snapshot.position().get().saturating_sub(1)),
                value: None,
            },
        };
        match change.try_transform(of) {
            Ok(()) => self.changes.push((mapping, change)),
            Err(fault) => self
                .rejected
                .push(RejectedRow::new(mapping, &change, fault)),
        }
        Ok(())
    }

    fn into_batch(self, plan: &Plan, at: LogPlace) -> Batch {
        let mut changes = vec![Vec::new(); plan.mappings.len()];
        for (mapping, change) in self.changes {
            changes[mapping].push(change);
        }
        Batch::repair(at, changes)
    }
}

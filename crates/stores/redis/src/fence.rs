//! What must be true of the store's records for a step to change anything.

use onelog_record::Position;
use onelog_store::{LogPlace, StoreError};

use crate::bookkeeping::{Record, least};

/// What must be true of the record.
#[derive(Clone, Copy)]
pub(crate) struct Fence<'a> {
    pub(crate) sink: &'a str,
    pub(crate) log: &'a str,
    pub(crate) plan: &'a str,
    pub(crate) epoch: u64,
    /// The position that the store must have and the one it has afterwards; `None`: any, unchanged.
    pub(crate) step: Option<(Position, LogPlace)>,
}

impl Fence<'_> {
    /// Whether a record is ours.
    pub(crate) fn check_epoch(&self, record: &Record) -> Result<(), StoreError> {
        match record.epoch {
            Some(epoch) if epoch == self.epoch => Ok(()),
            Some(found) => Err(StoreError::of_epoch(self.epoch, found)),
            None => Err(StoreError::PositionMismatch {
                expected: self.step.map(|(from, _)| from),
                found: None,
            }),
        }
    }

    /// Whether all records are ours. A later takeover of one of them counts, whatever became of the
    /// others.
    pub(crate) fn check_epochs(&self, records: &[Record]) -> Result<(), StoreError> {
        let later = records.iter().find(|r| r.epoch > Some(self.epoch));
        let mut others = later.into_iter().chain(records);
        others.try_for_each(|record| self.check_epoch(record))
    }

    /// Whether the store is ours and has the expected position.
    pub(crate) fn check(&self, records: &[Record]) -> Result<(), StoreError> {
        self.check_epochs(records)?;
        let Some((from, to)) = self.step else {
            return Ok(());
        };
        let found = least(records, self.plan);
        let mut is_expected = found
            .as_ref()
            .is_some_and(|found| found.log_id == self.log && found.position == from);
        // A repair writes everywhere, so no partition may be further.
        is_expected &=
            from != to.position || records.iter().all(|r| r.position == Some(from.get()));
        match is_expected {
            true => Ok(()),
            false => Err(StoreError::PositionMismatch {
                expected: Some(from),
                found,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_takeover_of_one_partition_counts_whatever_the_others_are() {
        let fence = Fence {
            sink: "s",
            log: "l",
            plan: "p",
            epoch: 7,
            step: None,
        };
        let records = |epochs: &[u64]| {
            let record = |epoch: &u64| Record {
                epoch: Some(*epoch),
                ..Record::default()
            };
            epochs.iter().map(record).collect::<Vec<_>>()
        };
        fence.check_epochs(&records(&[7, 7])).unwrap();
        let back = fence.check_epochs(&records(&[7, 5])).unwrap_err();
        assert!(
            matches!(back, StoreError::PutBack { ours: 7, found: 5 }),
            "{back}"
        );
        let taken = fence.check_epochs(&records(&[5, 8])).unwrap_err();
        assert!(
            matches!(taken, StoreError::Fenced { ours: 7, found: 8 }),
            "{taken}"
        );
    }
}

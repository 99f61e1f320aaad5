//! Rows that are deleted and inserted again in one transaction, because two of them exchange a value
//! that each may have once.
//!
//! Rows of other tables would follow a deleted row (`ON DELETE CASCADE`, `SET NULL`), and the sink's user
//! does not see the foreign keys of tables that it has no rights on. So the server looks at none while
//! rows are deleted that come back.

use onelog_store::Change;

use super::{Trouble, Writer};

const DELETING: &str = "deleting rows for a moment in";

impl Writer<'_> {
    /// Applies last images by deleting every row that changes, then inserting: where rows exchange
    /// values that must be unique. Only where all tables that change are renewable.
    pub(crate) fn anew(&mut self, changes: &[Vec<Change>]) -> Result<(), Trouble> {
        self.delete_all(changes)?;
        for (mapping, changes) in changes.iter().enumerate() {
            self.put(mapping, &self.statements[mapping].insert, changes)?;
        }
        Ok(())
    }

    /// Deletes every row that changes; those that come back are deleted without what would follow them.
    pub(super) fn delete_all(&mut self, changes: &[Vec<Change>]) -> Result<(), Trouble> {
        self.delete_those(changes, |change| change.value.is_none())?;
        self.connection.without_followers(DELETING, |connection| {
            let mut writer = Writer {
                connection,
                row: &mut *self.row,
                ..*self
            };
            writer.delete_those(changes, |change| change.value.is_some())
        })
    }

    fn delete_those(
        &mut self,
        changes: &[Vec<Change>],
        are_meant: fn(&Change) -> bool,
    ) -> Result<(), Trouble> {
        let mappings = (0..changes.len()).rev();
        mappings.into_iter().try_for_each(|mapping| {
            let meant = changes[mapping].iter().filter(|change| are_meant(change));
            self.delete(mapping, meant)
        })
    }
}

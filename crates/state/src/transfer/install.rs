//! Putting a state that was taken in in place of the live one.
//!
//! The new file gets the live one's name in one step, so a crash leaves the one or the other. Readers
//! of the former state keep its file open, which has no name any more; all handles go on with the new
//! one.

use std::sync::Arc;

use super::Imported;
use crate::apply::Writer;
use crate::backend::{publish_file, rename_file};
use crate::checkpoint::Checkpoint;
use crate::planted::{self, Bug};
use crate::snapshot::Reach;
use crate::state::{Opened, State};
use crate::tree::{Applied, OpenError};
use crate::views::Views;

/// A state could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A checkpoint writes the file that would be replaced.
    #[error("a checkpoint is running; install the state when it has ended")]
    CheckpointRuns {
        /// To be installed later.
        imported: Box<Imported>,
    },
    /// It was taken in beside another state.
    #[error("the state was taken in beside another one than that in whose place it would be put")]
    OtherState,
    /// The live state reaches as far already.
    #[error(
        "the state to install reaches entry {is}, the live one reaches {live} already; drop the transfer"
    )]
    NotNewer {
        is: onelog_record::Index,
        live: onelog_record::Index,
    },
    /// The names could not be changed. Final: which of the two files has the name is not known.
    #[error("putting the new state file in place failed: {0}; the process must stop")]
    Publish(#[source] OpenError),
}

impl State {
    /// Puts a state that was taken in in the place of this one: all handles go on with it, and what
    /// holds a snapshot of the former one can go on reading that. Durable when it answers. Called by
    /// the applying thread; `unfinished` is a checkpoint that found no room, which is taken and given
    /// up.
    ///
    /// # Errors
    /// When a checkpoint is running or the state is no newer, both without any change; or when the
    /// disk fails, which is final.
    pub fn install(
        &self,
        imported: Imported,
        unfinished: &mut Option<Checkpoint>,
    ) -> Result<Opened, InstallError> {
        let mut writer = self.writer();
        let is_running = unfinished.is_none() && self.shared.views().current.memtables.len() > 1;
        if is_running {
            let imported = Box::new(imported);
            return Err(InstallError::CheckpointRuns { imported });
        }
        self.check_install(&imported, unfinished.as_ref(), writer.applied)?;
        drop(unfinished.take());
        let Imported {
            ids,
            base,
            tree,
            mut new_file,
        } = imported;
        // From here on a failure leaves it open which file has the name.
        writer.is_broken = true;
        new_file.is_published = true;
        self.publish_new_file().map_err(InstallError::Publish)?;
        let active = self.shared.new_memtable();
        let applied = base.applied;
        let opened = Opened {
            applied,
            ids,
            members: base.members.clone(),
            installed: base.installed,
        };
        let views = Views {
            current: Arc::new(Reach {
                memtables: vec![active.clone()],
                base,
            }),
            kept: None,
        };
        *writer = Writer::new(active, applied);
        *self.shared.tree.lock() = tree;
        let former = self.shared.replace_state(views, applied);
        // The former tree is never opened again.
        former.end_bases(None);
        tracing::info!(
            position = applied.position.0,
            index = applied.index.0,
            "another node's state is installed"
        );
        Ok(opened)
    }

    fn publish_new_file(&self) -> Result<(), OpenError> {
        let disk = self.shared.disk.as_ref();
        match planted::is(Bug::InstallNotFlushed) {
            true => rename_file(disk),
            false => publish_file(disk),
        }
    }

    fn check_install(
        &self,
        imported: &Imported,
        unfinished: Option<&Checkpoint>,
        live: Applied,
    ) -> Result<(), InstallError> {
        let is_of = |shared| Arc::ptr_eq(shared, &self.shared);
        if !is_of(&imported.new_file.shared)
            || unfinished.is_some_and(|checkpoint| !is_of(&checkpoint.shared))
        {
            return Err(InstallError::OtherState);
        }
        let is = imported.applied();
        if is.index <= live.index || is.position < live.position {
            return Err(InstallError::NotNewer {
                is: is.index,
                live: live.index,
            });
        }
        Ok(())
    }
}

//! Reading on after redb refused to: once a call has failed, for want of room as well, it takes no
//! further one, reads included. The tree is then opened again at the same checkpoint, and what reads
//! the former one goes on there, where it stopped. Nothing else looks here: a read costs no more. After
//! a read that failed nothing is opened again, and nothing waits here (see fault.rs).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::tree::Base;

/// How long a reader waits for the tree to be opened again. It is longer than that takes.
const WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
enum Next {
    #[default]
    Unknown,
    There(Arc<Base>),
    /// The failure was final.
    Never,
}

/// What comes behind a base that can no longer be read: the same rows in the tree of today.
#[derive(Debug, Default)]
pub(crate) struct Successor {
    next: Mutex<Next>,
    is_known: Condvar,
}

impl Successor {
    /// Says where to read on; `None` when nowhere.
    pub(crate) fn set(&self, base: Option<Arc<Base>>) {
        *self.next.lock() = base.map_or(Next::Never, Next::There);
        self.is_known.notify_all();
    }

    /// Where to read on. Waits while that is not known.
    pub(crate) fn get(&self) -> Option<Arc<Base>> {
        let mut next = self.next.lock();
        let is_unknown = |next: &mut Next| matches!(next, Next::Unknown);
        self.is_known.wait_while_for(&mut next, is_unknown, WAIT);
        match &*next {
            Next::There(base) => Some(Arc::clone(base)),
            Next::Unknown | Next::Never => None,
        }
    }
}

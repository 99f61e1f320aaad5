//! The places of this process, by name. What is in a place lives as long as the process.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::bookkeeping::Entry;
use crate::ddl::Table;

static PLACES: Mutex<BTreeMap<String, Arc<Mutex<Contents>>>> = Mutex::new(BTreeMap::new());

/// Everything in one place.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) tables: BTreeMap<String, Arc<Table>>,
}

#[derive(Debug)]
pub(crate) struct Connection(Arc<Mutex<Contents>>);

impl Connection {
    pub(crate) fn open(place: &str) -> Self {
        Self(Arc::clone(
            PLACES.lock().entry(place.to_owned()).or_default(),
        ))
    }

    /// One step of the store: nothing is seen of it until the guard is dropped.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock()
    }
}

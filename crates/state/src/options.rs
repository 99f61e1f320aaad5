//! How much memory the state may use.

/// The least size at which a memtable is frozen; smaller settings are raised to it.
pub(crate) const MEMTABLE_BYTES_MIN: usize = 4 << 10;

/// Settings of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateOptions {
    /// At this size, in bytes, the active memtable wants to be frozen and checkpointed.
    pub memtable_bytes: usize,
    /// The most bytes of all memtables that the views hold together. At or above it `is_full`
    /// says so, and its writer must wait. Four times `memtable_bytes` or more lets
    /// writes go on while a checkpoint runs and the view before it is kept.
    pub memtable_bytes_max: usize,
    /// Memory that the B-tree may use to cache pages, in bytes.
    pub cache_bytes: usize,
    /// How many ids of committed transactions are remembered, newest first.
    pub ids_max: usize,
    /// Whether opening reads the whole B-tree and checks every checksum: slow, for `check`.
    pub check_integrity: bool,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self {
            memtable_bytes: 64 << 20,
            memtable_bytes_max: 256 << 20,
            cache_bytes: 256 << 20,
            ids_max: 1_000_000,
            check_integrity: false,
        }
    }
}

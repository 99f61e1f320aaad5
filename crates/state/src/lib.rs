//! What is true now: memtable over a B-tree, snapshots at a position, checkpoints

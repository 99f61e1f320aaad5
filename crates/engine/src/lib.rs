//! Raft core, validator and numbering as a state machine without I/O

//! The validator and the idempotency window: pure data structures

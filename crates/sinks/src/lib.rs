//! The stores that follow the log, and their common runner

//! The log on disk: frames, segments, hard state, group flush, recovery, readers

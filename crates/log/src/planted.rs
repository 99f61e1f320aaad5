//! Bugs planted on purpose, behind the feature `planted-bugs`: a test turns one on and asserts that
//! the checkers then fail.

onelog_record::planted_bugs! {
    /// Recovery cuts a tail although entries in it were acknowledged.
    CutBelowWatermark = 1,
    /// A flush answers well without having flushed.
    AcknowledgeBeforeFlush = 2,
    /// Flushes count in the order in which they end, not in the order of the log.
    FlushOutOfOrder = 3,
    /// A segment is counted, and takes frames, while its name may still be lost.
    NameUnflushed = 4,
    /// Retention removes segments that the hard state still counts on.
    DropUnrecorded = 5,
    /// A retention drops the segment before one that has no file yet.
    DropBeforeRoll = 6,
    /// A cut answers while the frames behind it may still be on the disk.
    CutUnflushed = 7,
    /// A cut leaves the watermark in the hard state where it was.
    CutKeepsWatermark = 8,
    /// Frames behind an unfinished cut count as evidence of what was durable.
    StaleEvidence = 9,
    /// A restart removes the old segments before the hard state counts the new one.
    RestartUncounted = 10,
    /// A restart leaves files with old frames to the new log.
    RestartKeepsSpares = 11,
    /// A reader does not notice that what it reads was replaced meanwhile.
    ReadAcrossCut = 12,
}

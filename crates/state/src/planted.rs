//! Bugs planted on purpose, behind the feature `planted-bugs`: a test turns one on and asserts that
//! the checkers then fail.

onelog_record::planted_bugs! {
    /// A checkpoint writes its position in an earlier transaction than its rows.
    PositionOutsideCheckpoint = 1,
    /// A checkpoint forgets the deletes.
    TombstoneLost = 2,
    /// A checkpoint takes the members of now in place of those at its own place.
    MembersOfLaterEntry = 3,
    /// A checkpoint leaves deleted rows in the digest.
    DigestForgetsDeletes = 4,
    /// An installation answers before the new file's name is durable.
    InstallNotFlushed = 5,
}

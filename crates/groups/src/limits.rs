//! The bounds of everything that a client can make the coordinator keep.

/// Groups of one coordinator.
pub const GROUPS_MAX: usize = 10_000;

/// Members of a group, together with those that were given an id and did not join yet.
pub const MEMBERS_MAX: usize = 1_000;

/// Of a group's id, a topic, an instance id, the name of a protocol and the type of a group's
/// protocol. None of them has control characters, so that none takes more than twice its bytes as
/// JSON.
pub const NAME_BYTES_MAX: usize = 255;

/// Of a client's name and of its address; what is longer is cut.
pub const CLIENT_NAME_BYTES_MAX: usize = 255;

/// Protocols that a member offers.
pub const PROTOCOLS_MAX: usize = 32;

/// Metadata of all protocols of a member, with their names.
pub const MEMBER_METADATA_BYTES_MAX: usize = 256 << 10;

pub const ASSIGNMENT_BYTES_MAX: usize = 256 << 10;

/// All members of a group with metadata and assignments: their rows fit in one transaction of 8 MiB,
/// with bytes in base64 and names that are twice as long as JSON.
pub const GROUP_BYTES_MAX: usize = 3 << 20;

/// Partitions of which a group has an offset. The records of all of them fit in one transaction of
/// 10,000 records and 8 MiB, beside those of the members: a group is deleted at once.
pub const OFFSETS_MAX: usize = 5_000;

/// The text that a client stores with an offset.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4_096;

/// The texts of one offset commit, as JSON.
pub const COMMIT_BYTES_MAX: usize = 2 << 20;

/// Members that one request takes out of a group.
pub const LEAVING_MAX: usize = MEMBERS_MAX;

/// What all groups together take in memory, as it is counted.
pub const MEMORY_BYTES_MAX: usize = 256 << 20;

/// Records that wait to be stored, in steps of one transaction each. More requests that would store
/// something are refused.
pub const STORES_MAX: usize = 16_384;

/// Steps of one group that wait to be stored when an instance comes back. The next one tries again:
/// each such step ends the records of all former ids.
pub const RETURNS_MAX: usize = 64;

/// What one record, member or offset takes beside its bytes, as it is counted.
pub(crate) const OVERHEAD_BYTES: usize = 128;

/// What a protocol takes beside its bytes, as it is counted.
pub(crate) const PROTOCOL_OVERHEAD_BYTES: usize = 32;

pub const SESSION_TIMEOUT_MS_MIN: u32 = 1_000;
pub const SESSION_TIMEOUT_MS_MAX: u32 = 30 * 60 * 1_000;

/// Rebalance time-outs outside these bounds are taken as the bound: a group waits no longer for a
/// member.
pub const REBALANCE_TIMEOUT_MS_MIN: u32 = 1_000;
pub const REBALANCE_TIMEOUT_MS_MAX: u32 = 60 * 60 * 1_000;

/// How long a first join waits for its group to begin; the client has gone then, or tries again.
pub const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1_000;

/// How long an empty group waits for more members once the first one has joined.
pub const INITIAL_REBALANCE_DELAY_MS: u64 = 1_000;

/// How long the offsets of a group without members are kept.
pub const OFFSETS_RETENTION_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// How often a group is looked at for what is kept long enough.
pub const CLEANUP_INTERVAL_MS: u64 = 10 * 60 * 1_000;

/// Whether a name is short, and free of control characters.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.contains(char::is_control)
}

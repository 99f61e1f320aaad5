//! The stable codes of refusals: `error` of the HTTP API, `reason` of the metrics. Programs match
//! on them, so a code never changes; each is spelled here and nowhere else.

pub const CONFLICT: &str = "conflict";
pub const SNAPSHOT_TOO_OLD: &str = "snapshot_too_old";
pub const POSITION_IN_FUTURE: &str = "position_in_future";
pub const GUARD_FAILED: &str = "guard_failed";
pub const NOT_UNIQUE: &str = "not_unique";
pub const BAD_OPERATION: &str = "bad_operation";
pub const SCHEMA: &str = "schema";
pub const ID_MISMATCH: &str = "id_mismatch";
pub const ID_EXPIRED: &str = "id_expired";
pub const UNKNOWN_TABLE: &str = "unknown_table";
pub const RESERVED_TABLE: &str = "reserved_table";
pub const MALFORMED: &str = "malformed";
pub const TOO_LARGE: &str = "too_large";
pub const DISK_FULL: &str = "disk_full";
pub const OVERLOADED: &str = "overloaded";
pub const NO_LEADER: &str = "no_leader";
pub const NOT_LEADER: &str = "not_leader";
pub const STOPPED: &str = "stopped";

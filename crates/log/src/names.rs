//! The names of a log's files.

use crate::hard_state::{HARD_STATE_FILE, HARD_STATE_NEW};
use crate::index_file::{INDEX_NEW_SUFFIX, INDEX_SUFFIX};
use crate::kept::{KEPT_NEW, is_kept};
use crate::prepare::SPARE_PREFIX;
use crate::real_disk::LOCK_FILE;
use crate::restart::RESTART_FILE;
use crate::segment::{SUFFIX, parse_name};
use crate::table_index::{TABLES_NEW_SUFFIX, TABLES_SUFFIX};

/// Whether a file of this name can be one of a log's. A newer version may have others.
#[must_use]
pub fn is_log_file(name: &str) -> bool {
    let suffixes = [
        INDEX_NEW_SUFFIX,
        INDEX_SUFFIX,
        TABLES_NEW_SUFFIX,
        TABLES_SUFFIX,
        SUFFIX,
    ];
    let is_of_segment = suffixes
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .is_some_and(|stem| parse_name(&format!("{stem}{SUFFIX}")).is_some());
    let is_spare = name
        .strip_prefix(SPARE_PREFIX)
        .is_some_and(|number| number.parse::<u64>().is_ok());
    let fixed = [
        LOCK_FILE,
        HARD_STATE_FILE,
        HARD_STATE_NEW,
        RESTART_FILE,
        KEPT_NEW,
    ];
    fixed.contains(&name) || is_kept(name) || is_of_segment || is_spare
}

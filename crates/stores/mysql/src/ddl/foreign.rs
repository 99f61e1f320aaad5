//! Whether the rows of a table that others filled are the same as they were.
//!
//! They are counted and compared with the log before a backfill, and written in its last step. What
//! their owner writes in between must not be lost: the digest of all rows from before the count is
//! compared with that of the last step, in which they are locked.

use mysql_async::Params;
use onelog_mapping::MappingPlan;
use onelog_store::StoreError;

use crate::connection::{Connection, REBUILD_TIMEOUT};
use crate::error::NO_TABLE;
use crate::names::quote;

/// The mapped columns of all rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignRows {
    pub(crate) into: String,
    pub(crate) rows: u64,
    lanes: [u64; 2],
}

impl ForeignRows {
    /// `suffix` is a lock, or nothing. A table that is not there has no rows.
    pub(crate) fn read(
        connection: &mut Connection,
        mapping: &MappingPlan,
        suffix: &str,
    ) -> Result<Self, StoreError> {
        let found = connection.fetch_within(
            REBUILD_TIMEOUT,
            &format!("{} {suffix}", digest(mapping)),
            Params::Empty,
        );
        let rows = match found {
            Err(fault) if fault.code() == Some(NO_TABLE) => Vec::new(),
            other => {
                other.map_err(|fault| connection.store_error("looking at the rows of", fault))?
            }
        };
        let number = |n| {
            let row = rows.first();
            row.and_then(|row| row.get::<Option<u64>, _>(n).flatten())
        };
        Ok(Self {
            into: mapping.into.clone(),
            rows: number(0).unwrap_or(0),
            lanes: [1, 2].map(|n| number(n).unwrap_or(0)),
        })
    }
}

/// The number of rows and two sums over them that do not depend on their order.
fn digest(mapping: &MappingPlan) -> String {
    let columns: Vec<String> = mapping
        .column_names()
        .map(|name| format!("IFNULL(SHA1({}), '-')", quote(name)))
        .collect();
    let hash = format!("SHA1(CONCAT({}))", columns.join(", "));
    let lane = |from: u8| {
        format!("BIT_XOR(CAST(CONV(SUBSTRING({hash}, {from}, 16), 16, 10) AS UNSIGNED))")
    };
    format!(
        "SELECT CAST(COUNT(*) AS UNSIGNED), CAST({} AS UNSIGNED), CAST({} AS UNSIGNED) FROM {}",
        lane(1),
        lane(17),
        quote(&mapping.into)
    )
}

//! What users have added to a table that onelog made, whose place another one takes with each backfill.
//! Rights and views go by the name of a table and stay. Which columns onelog made is not recorded, so
//! that one that an earlier definition had is named as well: it is dropped like the others.

use mysql_async::{Params, Value};
use onelog_mapping::{EXISTING, Plan};
use onelog_store::StoreError;

use super::{existing, hidden};
use crate::bookkeeping::read_record;
use crate::connection::Connection;
use crate::kind::MysqlTarget;
use crate::names::Names;

/// The kind and the name of each. A foreign key of others onto the table is a reason to refuse the
/// backfill. MariaDB says that a default is none by the word NULL.
const ADDED: &str = "
SELECT 'index' AS kind, INDEX_NAME AS name FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND INDEX_NAME <> 'PRIMARY'
UNION SELECT 'constraint', CONSTRAINT_NAME FROM information_schema.TABLE_CONSTRAINTS
WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = ?
  AND CONSTRAINT_TYPE IN ('CHECK', 'FOREIGN KEY')
UNION SELECT 'trigger', TRIGGER_NAME FROM information_schema.TRIGGERS
WHERE EVENT_OBJECT_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE = ?
UNION SELECT 'default of the column', COLUMN_NAME FROM information_schema.COLUMNS
WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND COALESCE(COLUMN_DEFAULT, 'NULL') <> 'NULL'
UNION SELECT 'comment of the column', COLUMN_NAME FROM information_schema.COLUMNS
WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND COLUMN_COMMENT <> ''
UNION SELECT 'NOT NULL of the column', COLUMN_NAME FROM information_schema.COLUMNS
WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND IS_NULLABLE = 'NO' AND COLUMN_KEY <> 'PRI'
UNION SELECT 'partition', PARTITION_NAME FROM information_schema.PARTITIONS
WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND PARTITION_NAME IS NOT NULL
ORDER BY 1, 2";
const NAMED_IN_ADDED: usize = 7;

/// What a backfill by this mapping drops beside what onelog made.
pub(crate) fn lost(
    target: &MysqlTarget,
    plan: &Plan,
    mapping: usize,
) -> Result<Vec<String>, StoreError> {
    if plan.mappings.iter().any(|m| m.options.flag(EXISTING)) {
        // Its rows are merged into the tables that are there.
        return Ok(Vec::new());
    }
    let mapping = &plan.mappings[mapping];
    let into = &mapping.into;
    let mut connection = Connection::open_to_read(target)?;
    let found = existing::find_table(&mut connection, into)?;
    let mark = found.and_then(|found| found.mark);
    if mark.is_none_or(|mark| mark.names(&connection, into) == Some(false)) {
        return Ok(Vec::new());
    }
    let is_mapped = |name: &str| {
        let name = name.to_lowercase();
        mapping
            .column_names()
            .any(|mapped| mapped.to_lowercase() == name)
    };
    let mut lost: Vec<String> = existing::columns(&mut connection, into)?
        .iter()
        .filter(|column| !is_mapped(&column.name))
        .map(|column| format!("the column '{}'", column.name))
        .collect();
    let names = vec![Value::from(into); NAMED_IN_ADDED];
    let rows = connection.rows(existing::LOOKING, ADDED, Params::Positional(names))?;
    let said = |row: &mysql_async::Row| {
        let text = |n| row.get::<String, _>(n).unwrap_or_default();
        format!("the {} '{}'", text(0), text(1))
    };
    lost.extend(rows.iter().map(said));
    Ok(lost)
}

/// The log that the sink of this name follows here.
pub(crate) fn followed_log(target: &MysqlTarget, sink: &str) -> Result<Option<String>, StoreError> {
    let mut connection = Connection::open_to_read(target)?;
    let found = read_record(&mut connection, &Names::new(sink).position(), sink, "");
    let found = found.map_err(|fault| connection.store_error(existing::LOOKING, fault))?;
    Ok(found.map(|found| found.log_id))
}

/// Fails as a backfill of the sink of this name would.
pub(crate) fn check_backfill(
    target: &MysqlTarget,
    sink: &str,
    plan: &Plan,
    mapping: usize,
) -> Result<(), StoreError> {
    let mut connection = Connection::open_to_read(target)?;
    let of = &plan.mappings[mapping];
    existing::check_target(&mut connection, sink, of)?;
    if plan.mappings.iter().any(|m| m.options.flag(EXISTING)) {
        return Ok(());
    }
    match hidden::check(&mut connection, of, &of.into) {
        // A server that takes no such question, as a replica, is asked again before the backfill.
        Err(error @ StoreError::SchemaMismatch { .. }) => Err(error),
        _ => Ok(()),
    }
}

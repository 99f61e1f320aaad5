//! Whether a foreign key refers to a table of onelog's that the sink's user does not see, because it is
//! of a table without rights for him.
//!
//! It would follow the table that a rebuild replaces, and keep that one from being dropped. The catalog
//! hides it, so the server is asked for what it refuses: `ALTER TABLE … ENGINE=MyISAM, DROP COLUMN` of a
//! column that is not there. It fails for the key, or else for the column, and never changes anything.

use mysql_async::{Params, Row, Value};
use onelog_mapping::MappingPlan;
use onelog_store::{Remedy, StoreError};

use super::existing::LOOKING;
use crate::connection::{Connection, Flavour, STATEMENT_TIMEOUT};
use crate::error::NO_TABLE;
use crate::names::quote;

/// No table of onelog's has this column.
const NO_SUCH_COLUMN: &str = "onelog_no_such_column";
/// The column is not there: no key refers to the table.
const NOTHING_TO_DROP: u16 = 1091;
/// A key refers to the table, or the table has one itself; the second and third as MySQL says it.
const REFERENCED: [u16; 3] = [1217, 1451, 3776];
/// The user may not alter the table, and so not rename it either.
const NO_RIGHT_TO_ALTER: u16 = 1142;

/// Fails where a key refers to the table of a mapping, which has the name `table` just now. Not within
/// a transaction, which this would commit.
pub(crate) fn check(
    connection: &mut Connection,
    mapping: &MappingPlan,
    table: &str,
) -> Result<(), StoreError> {
    let sql = format!(
        "ALTER TABLE {} ENGINE=MyISAM, DROP COLUMN {NO_SUCH_COLUMN}",
        quote(table)
    );
    let fault = match connection.statement(STATEMENT_TIMEOUT, &sql) {
        Ok(_) => return Err(connection.broken(LOOKING, "the server dropped no column")),
        Err(fault) => fault,
    };
    match fault.code() {
        Some(NOTHING_TO_DROP | NO_TABLE | NO_RIGHT_TO_ALTER) => Ok(()),
        Some(code) if REFERENCED.contains(&code) => match referring(connection, table)? {
            Some(key) => {
                let what = format!(
                    "{key} refers to it and would be carried away with the rows that a rebuild replaces; nothing was changed. Drop that key, or make the table yours and set 'existing'"
                );
                Err(StoreError::mismatch(mapping, what, Remedy::Said))
            }
            None => Ok(()),
        },
        _ => Err(connection.store_error(LOOKING, fault)),
    }
}

/// What refers to the table, as far as the user may know. `None`: only the table's own keys were meant.
fn referring(connection: &mut Connection, table: &str) -> Result<Option<String>, StoreError> {
    if let Some(found) = all_keys(connection, table) {
        let key = found.first();
        return Ok(key.map(|(key, from)| format!("the foreign key '{key}' of '{from}'")));
    }
    let own = connection.rows(
        LOOKING,
        "SELECT CONSTRAINT_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS
         WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = ?",
        Params::Positional(vec![Value::from(table)]),
    )?;
    let hidden = "a foreign key of a table that this user may not see";
    let own = own.first().and_then(|row| row.get::<String, _>(0));
    Ok(Some(match own {
        None => hidden.to_owned(),
        Some(own) => format!(
            "perhaps {hidden} (it has the foreign key '{own}' itself, beside which the server tells only a user with the right PROCESS: grant it, or drop '{own}', which a rebuild drops too)"
        ),
    }))
}

/// Every key onto the table. `None`: the server shows this user none at all, although there is one.
fn all_keys(connection: &mut Connection, table: &str) -> Option<Vec<(String, String)>> {
    let catalog = match connection.flavour() {
        Flavour::Mariadb => "INNODB_SYS_FOREIGN",
        Flavour::Mysql => "INNODB_FOREIGN",
    };
    // Names of other letters are spelled otherwise there, and not found.
    let is = |column| format!("LOWER({column}) = LOWER(CONCAT(DATABASE(), '/', ?))");
    let sql = format!(
        "SELECT ID, FOR_NAME, {refers} FROM information_schema.{catalog} WHERE {refers} OR {is_own}",
        refers = is("REF_NAME"),
        is_own = is("FOR_NAME"),
    );
    let names = Params::Positional(vec![Value::from(table); 3]);
    let rows = connection.fetch(&sql, names).ok()?;
    let refers = |row: &&Row| row.get::<Option<i64>, _>(2).flatten() == Some(1);
    let text = |row: &Row, n| row.get::<Option<String>, _>(n).flatten();
    let keys = rows.iter().filter(refers);
    let keys = keys.filter_map(|row| text(row, 0).zip(text(row, 1)));
    (!rows.is_empty()).then(|| keys.collect())
}

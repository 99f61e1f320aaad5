//! What SQLite holds beside the rows: each sink's position and epoch, and whose a table is.

use std::path::Path;

use onelog_record::Position;
use onelog_store::{Followed, LogPlace, StoreError, StorePosition};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::connection::open_to_read;
use crate::error::classify;
use crate::store::Scope;

const BOOKKEEPING: &str = "
CREATE TABLE IF NOT EXISTS onelog_position (
  sink TEXT PRIMARY KEY NOT NULL, log_id TEXT NOT NULL, position INTEGER,
  epoch INTEGER NOT NULL, plan TEXT NOT NULL, chain INTEGER, witnesses TEXT) STRICT;
CREATE TABLE IF NOT EXISTS onelog_tables (
  name TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, sink TEXT, definition TEXT) STRICT;";

/// What earlier versions did not keep, by table: of a position the checksum of its history, and what is
/// known of the tables there; of a table its definition.
const ADDED: [(&str, &str, &str); 3] = [
    ("onelog_position", "chain", "INTEGER"),
    ("onelog_position", "witnesses", "TEXT"),
    ("onelog_tables", "definition", "TEXT"),
];

/// The definition that the table `onelog_tables.name` has now; NULL: there is none.
const DEFINITION: &str = "(SELECT s.sql FROM sqlite_schema s
  WHERE s.type = 'table' AND s.name = onelog_tables.name COLLATE NOCASE)";

/// Which sink follows which log, by which mappings.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) sink: String,
    pub(crate) log_id: String,
    /// The plan's fingerprint.
    pub(crate) plan_id: String,
    /// The epoch of a sink that is not known.
    pub(crate) first_epoch: u64,
}

/// Makes the bookkeeping tables where they are missing.
pub(crate) fn create_bookkeeping(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {BOOKKEEPING} COMMIT;"))?;
    for (table, name, kind) in ADDED {
        if has_column(connection, table, name)? {
            continue;
        }
        // Another process may do the same now.
        let added =
            connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {kind}"));
        if !has_column(connection, table, name)? {
            return added;
        }
    }
    Ok(())
}

fn has_column(connection: &Connection, table: &str, name: &str) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)",
        params![table, name],
        |row| row.get(0),
    )
}

/// Raises the epoch, and forgets a position that was reached under another plan or of another log.
/// `None`: the sink is another log's, which is not `from`.
pub(crate) fn take_over(
    connection: &Connection,
    identity: &Identity,
    from: Option<&str>,
) -> rusqlite::Result<Option<u64>> {
    // A transaction of its own: the commit of a statement that answers rows can fail unseen.
    let transaction = connection.unchecked_transaction()?;
    let epoch: Option<i64> = transaction
        .query_row(
            "INSERT INTO onelog_position (sink, log_id, position, epoch, plan)
             VALUES (?1, ?2, NULL, ?5, ?3)
             ON CONFLICT (sink) DO UPDATE SET epoch = epoch + 1, plan = excluded.plan,
               log_id = excluded.log_id, position = CASE
                 WHEN plan = excluded.plan AND log_id = excluded.log_id THEN position END
               WHERE log_id IN (excluded.log_id, ?4)
             RETURNING epoch",
            params![
                identity.sink,
                identity.log_id,
                identity.plan_id,
                from,
                identity.first_epoch.cast_signed()
            ],
            |row| row.get(0),
        )
        .optional()?;
    transaction.commit()?;
    Ok(epoch.map(i64::cast_unsigned))
}

/// What the sink of this name follows, under any plan.
pub(crate) fn followed(connection: &Connection, sink: &str) -> rusqlite::Result<Option<Followed>> {
    connection
        .query_row(
            "SELECT log_id, position, chain FROM onelog_position WHERE sink = ?1",
            params![sink],
            |row| {
                let (position, chain): (Option<i64>, _) = (row.get(1)?, row.get(2)?);
                Ok(Followed {
                    log_id: row.get(0)?,
                    place: position.map(|position| LogPlace {
                        position: Position(position.cast_unsigned()),
                        chain,
                    }),
                })
            },
        )
        .optional()
}

/// The log that the sink of this name follows in a file, which is only read.
pub(crate) fn followed_log(path: &Path, sink: &str) -> Result<Option<String>, StoreError> {
    let connection = open_to_read(path)?;
    let look = || {
        if !has_column(&connection, "onelog_position", "log_id")? {
            return Ok(None);
        }
        let sql = "SELECT log_id FROM onelog_position WHERE sink = ?1";
        let found = connection.query_row(sql, [sink], |row| row.get(0));
        found.optional()
    };
    look().map_err(|error| classify("reading the position in", path, error))
}

pub(crate) fn read_position(
    connection: &Connection,
    identity: &Identity,
) -> rusqlite::Result<Option<StorePosition>> {
    connection
        .prepare_cached(
            "SELECT log_id, position, epoch, chain FROM onelog_position
             WHERE sink = ?1 AND plan = ?2 AND position IS NOT NULL",
        )?
        .query_row(params![identity.sink, identity.plan_id], |row| {
            Ok(StorePosition {
                log_id: row.get(0)?,
                position: Position(row.get::<_, i64>(1)?.cast_unsigned()),
                epoch: row.get::<_, i64>(2)?.cast_unsigned(),
                chain: row.get(3)?,
            })
        })
        .optional()
}

/// What is kept of the tables as they are at the position; see [`onelog_store::KnownTables`].
pub(crate) fn read_known(
    connection: &Connection,
    identity: &Identity,
) -> rusqlite::Result<Option<String>> {
    let found = connection
        .query_row(
            "SELECT witnesses FROM onelog_position
             WHERE sink = ?1 AND plan = ?2 AND position IS NOT NULL",
            params![identity.sink, identity.plan_id],
            |row| row.get(0),
        )
        .optional()?;
    Ok(found.flatten())
}

/// Nothing is kept where the sink was taken over meanwhile.
pub(crate) fn record_known(
    connection: &Connection,
    identity: &Identity,
    epoch: u64,
    known: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE onelog_position SET witnesses = ?1 WHERE sink = ?2 AND epoch = ?3")?
        .execute(params![known, identity.sink, epoch.cast_signed()])
        .map(drop)
}

fn signed(position: Position, path: &Path) -> Result<i64, StoreError> {
    i64::try_from(position.get()).map_err(|error| StoreError::Broken {
        what: format!("position {position} does not fit into {}", path.display()),
        cause: error.into(),
    })
}

/// Whose a table is; the inner `None` is a sink that was removed. What it left is known by its
/// definition: its name is the user's to give to another table.
pub(crate) fn table_owner(
    connection: &Connection,
    name: &str,
) -> rusqlite::Result<Option<Option<String>>> {
    connection
        .query_row(
            &format!(
                "SELECT sink FROM onelog_tables WHERE name = ?1
                   AND (sink IS NOT NULL OR definition IS NULL OR definition = {DEFINITION})"
            ),
            params![name],
            |row| row.get(0),
        )
        .optional()
}

/// Records that a table is this sink's.
pub(crate) fn record_owner(
    transaction: &Transaction<'_>,
    name: &str,
    sink: &str,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO onelog_tables (name, sink) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET sink = excluded.sink",
        params![name, sink],
    )?;
    transaction.execute(
        &format!("UPDATE onelog_tables SET definition = {DEFINITION} WHERE name = ?1"),
        params![name],
    )?;
    Ok(())
}

/// Forgets the owner of a table that is there no longer.
pub(crate) fn forget_owner(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM onelog_tables WHERE name = ?1", params![name])?;
    Ok(())
}

impl Scope<'_> {
    /// Moves the position; nothing else of the batch is worth trying when it is not ours to move.
    pub(crate) fn advance_position(
        &self,
        transaction: &Transaction<'_>,
        from: Position,
        to: LogPlace,
    ) -> Result<(), StoreError> {
        let failed = |error| classify("moving the position in", self.path, error);
        let moved = transaction
            .prepare_cached(
                "UPDATE onelog_position SET position = ?1, chain = ?7
                 WHERE sink = ?2 AND epoch = ?3 AND position = ?4 AND log_id = ?5 AND plan = ?6",
            )
            .and_then(|mut statement| {
                statement.execute(params![
                    to.position.get().cast_signed(),
                    self.identity.sink,
                    self.epoch.cast_signed(),
                    from.get().cast_signed(),
                    self.identity.log_id,
                    self.identity.plan_id,
                    to.chain
                ])
            })
            .map_err(failed)?;
        if moved == 1 {
            return Ok(());
        }
        self.check_epoch(transaction)?;
        Err(StoreError::PositionMismatch {
            expected: Some(from),
            found: read_position(transaction, self.identity).map_err(failed)?,
        })
    }

    pub(crate) fn check_epoch(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let found: Option<i64> = transaction
            .query_row(
                "SELECT epoch FROM onelog_position WHERE sink = ?1",
                params![self.identity.sink],
                |row| row.get(0),
            )
            .optional()
            .map_err(|error| classify("reading the epoch in", self.path, error))?;
        match found.map(i64::cast_unsigned) {
            Some(found) if found == self.epoch => Ok(()),
            Some(found) => Err(StoreError::of_epoch(self.epoch, found)),
            None => Err(StoreError::PositionMismatch {
                expected: None,
                found: None,
            }),
        }
    }

    /// Sets the position that a rebuild has reached.
    pub(crate) fn set_position(
        &self,
        transaction: &Transaction<'_>,
        place: LogPlace,
    ) -> Result<(), StoreError> {
        transaction
            .execute(
                "UPDATE onelog_position SET position = ?2, log_id = ?3, plan = ?4, chain = ?5
                 WHERE sink = ?1",
                params![
                    self.identity.sink,
                    signed(place.position, self.path)?,
                    self.identity.log_id,
                    self.identity.plan_id,
                    place.chain
                ],
            )
            .map_err(|error| classify("setting the position in", self.path, error))?;
        Ok(())
    }

    /// Forgets the sink; its rows stay.
    pub(crate) fn forget_sink(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.release_tables(transaction, &[])?;
        let sink = params![self.identity.sink];
        transaction.execute("DELETE FROM onelog_position WHERE sink = ?1", sink)?;
        Ok(())
    }

    /// Gives up the tables of the sink but for these: others may write to them from now on.
    pub(crate) fn release_tables(
        &self,
        transaction: &Transaction<'_>,
        kept: &[String],
    ) -> rusqlite::Result<()> {
        let kept = serde_json::json!(kept).to_string();
        let left = "sink = ?1 AND name NOT IN (SELECT value FROM json_each(?2))";
        // The name of a table that is gone is nobody's; what an earlier version backfilled is known
        // from now.
        for sql in [
            format!("DELETE FROM onelog_tables WHERE {left} AND {DEFINITION} IS NULL"),
            format!(
                "UPDATE onelog_tables SET sink = NULL, definition = coalesce(definition, {DEFINITION})
                 WHERE {left}"
            ),
        ] {
            transaction.execute(&sql, params![self.identity.sink, kept])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_whose_commit_fails_is_not_reported_as_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let identity = Identity {
            sink: "s".into(),
            log_id: "l".into(),
            plan_id: "p".into(),
            first_epoch: 1,
        };
        // Given a reader, which a commit must wait for without a write-ahead log,
        let ours = Connection::open(&path).unwrap();
        ours.busy_timeout(std::time::Duration::ZERO).unwrap();
        create_bookkeeping(&ours).unwrap();
        assert_eq!(take_over(&ours, &identity, None), Ok(Some(1)));
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        let found = followed(&reader, "s").unwrap().unwrap();
        assert_eq!(found.log_id, "l");
        // when the sink is taken over, then that fails,
        assert!(take_over(&ours, &identity, None).is_err());
        // and succeeds when the reader is gone: the epoch is the one after the last that was written.
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(take_over(&ours, &identity, None), Ok(Some(2)));
    }
}

//! A consistent snapshot of a PostgreSQL store: a read-only transaction on a connection of its own.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::StreamExt as _;
use onelog_mapping::{MappingPlan, Plan, Row};
use onelog_record::Position;
use onelog_store::{EachRow, IndexCheck, Remedy, StoreError, StoreReader};
use tokio_postgres::error::SqlState;

use crate::bookkeeping::Identity;
use crate::connection::{BEGIN_READ, Connection, Purpose, REBUILD_TIMEOUT, STATEMENT_TIMEOUT};
use crate::ddl::existing::{self, Existing};
use crate::ddl::lossless::{ReadAs, column_types, lossless};
use crate::ddl::table;
use crate::decode::{CopyStream, Malformed};
use crate::error::{self, Fault};
use crate::kind::PostgresTarget;

/// The name under which an audit connects.
const AUDIT: &str = "audit";

/// The snapshot. Its transaction ends with its connection.
#[derive(Debug)]
pub(crate) struct PostgresReader {
    connection: Connection,
    plan: Arc<Plan>,
    schema: String,
    position: Position,
    /// As what the columns of each mapping are read.
    read_as: Vec<Vec<ReadAs>>,
}

/// Opens a snapshot of tables as they are, without an owner. The right to read them suffices.
pub(crate) fn open_reader(
    target: &PostgresTarget,
    plan: &Arc<Plan>,
    purpose: Purpose,
) -> Result<Box<dyn StoreReader>, StoreError> {
    let connection = Connection::open(target, AUDIT, purpose)?;
    let client = &connection.client;
    let read_as = connection.wait("looking at the tables of", STATEMENT_TIMEOUT, async {
        client.batch_execute(&BEGIN_READ).await?;
        let mut read_as = Vec::with_capacity(plan.mappings.len());
        for mapping in &plan.mappings {
            // Whatever can be selected from can be compared.
            let found = existing::find_table(client, &target.schema, &mapping.into).await?;
            if matches!(found, Existing::Nothing) {
                let wrong = format!("there is no such table in the schema '{}'", target.schema);
                return Err(existing::schema_mismatch(
                    mapping,
                    &[wrong],
                    Remedy::NameAnother,
                ));
            }
            let types = column_types(client, &target.schema, &mapping.into).await?;
            let names: Vec<String> = types.iter().map(|found| found.name.clone()).collect();
            if let Some(error) = StoreError::without_columns(mapping, &names, false) {
                return Err(error.into());
            }
            let columns = lossless(mapping, &types);
            read_as.push(columns.map_err(|wrong| {
                existing::schema_mismatch(mapping, &wrong, Remedy::NameAnother)
            })?);
        }
        Ok(read_as)
    })?;
    Ok(Box::new(PostgresReader {
        connection,
        plan: Arc::clone(plan),
        schema: target.schema.clone(),
        position: Position::ZERO,
        read_as,
    }))
}

/// How many rows a table has; `None`: there is none of this name.
pub(crate) fn count_rows(target: &PostgresTarget, into: &str) -> Result<Option<u64>, StoreError> {
    let connection = Connection::open(target, AUDIT, Purpose::Snapshot)?;
    let client = &connection.client;
    connection.wait("counting the rows of", REBUILD_TIMEOUT, async {
        client.batch_execute(&BEGIN_READ).await?;
        if let Existing::Nothing = existing::find_table(client, &target.schema, into).await? {
            return Ok(None);
        }
        let sql = format!("SELECT count(*) FROM {}", table(&target.schema, into));
        let row = client.query_typed_one(&sql, &[]).await?;
        Ok(Some(row.get::<_, i64>(0).cast_unsigned()))
    })
}

impl PostgresReader {
    pub(crate) fn of_sink(
        target: &PostgresTarget,
        identity: &Identity,
    ) -> Result<Self, StoreError> {
        let connection = Connection::open(target, &identity.sink, Purpose::Snapshot)?;
        let client = &connection.client;
        let found = connection.wait("opening a snapshot of", STATEMENT_TIMEOUT, async {
            client.batch_execute(&BEGIN_READ).await?;
            identity.read_position(client).await
        })?;
        let Some(found) = found else {
            return Err(StoreError::PositionMismatch {
                expected: None,
                found: None,
            });
        };
        let of_mapping = |mapping: &MappingPlan| {
            let columns = mapping.columns.iter();
            columns.map(|column| ReadAs::of(column.kind)).collect()
        };
        Ok(Self {
            connection,
            plan: Arc::clone(&identity.plan),
            schema: identity.schema.clone(),
            position: found.position,
            read_as: identity.plan.mappings.iter().map(of_mapping).collect(),
        })
    }
}

impl PostgresReader {
    /// A value that cannot be read as the type in the mapping, with the columns of other types. It
    /// ends the snapshot, which the error has made useless.
    async fn unlike(&self, plan: &MappingPlan, error: &tokio_postgres::Error) -> Result<(), Fault> {
        let client = &self.connection.client;
        client.batch_execute("ROLLBACK").await?;
        let mut wrong = match existing::find_table(client, &self.schema, &plan.into).await? {
            Existing::Table(facts) => facts.unlike(plan),
            Existing::Nothing | Existing::Other(_) => Vec::new(),
        };
        wrong.push(format!(
            "it has a value that cannot be read as the mapping has it; PostgreSQL says: {}",
            error::message(error)
        ));
        Err(existing::schema_mismatch(plan, &wrong, Remedy::NameAnother))
    }
}

impl StoreReader for PostgresReader {
    fn position(&self) -> Position {
        self.position
    }

    fn scan(&mut self, mapping: usize, each: EachRow<'_>) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        let sql = copy_out(&self.schema, plan, &self.read_as[mapping]);
        let kinds: Vec<_> = self.read_as[mapping].iter().map(|read| read.kind).collect();
        let (connection, client) = (&self.connection, &self.connection.client);
        let what = "scanning";
        let malformed = |cause: Malformed| {
            Fault::Store(StoreError::Broken {
                what: format!("{what} {} in {}", plan.into, connection.place),
                cause: cause.into(),
            })
        };
        // A table may be as large as it is; each piece has its time.
        let scanned = connection.try_wait(what, REBUILD_TIMEOUT, async {
            let stream = client.copy_out(&sql).await;
            let stream = stream.map_err(|error| unreadable(plan, error))?;
            let mut stream = std::pin::pin!(stream);
            let mut copy = CopyStream::default();
            let mut row = Row::new(kinds.len());
            let mut each = |row: &Row| each(row) == ControlFlow::Continue(());
            loop {
                let next = tokio::time::timeout(STATEMENT_TIMEOUT, stream.next()).await;
                let Ok(next) = next else {
                    return Err(Fault::Store(error::unavailable(
                        format!("{what} {}", connection.place),
                        format!("no more rows within {} s", STATEMENT_TIMEOUT.as_secs()),
                    )));
                };
                let Some(piece) = next else { return Ok(()) };
                let go_on = copy
                    .take(&piece?, &kinds, &mut row, &mut each)
                    .map_err(malformed)?;
                if !go_on {
                    return Ok(());
                }
            }
        });
        let scanned = match scanned {
            Err(Fault::Sql(error)) if error::is_data_exception(&error) => {
                connection.try_wait(what, STATEMENT_TIMEOUT, self.unlike(plan, &error))
            }
            other => other,
        };
        scanned.map_err(|fault| fault.into_store_error(what, &connection.place))
    }

    fn check_index(&mut self, _: usize, _: usize) -> Result<Option<IndexCheck>, StoreError> {
        Ok(None)
    }
}

/// A table or a column that is not there is a matter of the mapping, not of the moment.
fn unreadable(plan: &MappingPlan, error: tokio_postgres::Error) -> Fault {
    match error.code() {
        Some(code) if *code == SqlState::UNDEFINED_TABLE => StoreError::not_there(plan).into(),
        Some(code) if *code == SqlState::UNDEFINED_COLUMN => {
            existing::schema_mismatch(plan, &[error::message(&error)], Remedy::NameAnother)
        }
        _ => error.into(),
    }
}

fn copy_out(schema: &str, mapping: &MappingPlan, read_as: &[ReadAs]) -> String {
    let columns: Vec<String> = mapping
        .column_names()
        .zip(read_as)
        .map(|(name, read_as)| read_as.expression(name))
        .collect();
    format!(
        "COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        table(schema, &mapping.into)
    )
}

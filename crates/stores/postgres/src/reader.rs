//! A consistent picture of a PostgreSQL store: a read-only transaction on a connection of its own.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::StreamExt as _;
use onelog_record::Position;

use super::connect::{Purpose, STATEMENT_TIMEOUT, Session};
use super::decode::CopyStream;
use super::error::{self, Fault};
use super::fit::{self, Found};
use super::{Own, schema, tables};
use crate::kind::PostgresTarget;
use onelog_mapping::{ColumnType, Plan, Row};
use onelog_store::{EachRow, IndexCheck, StoreError, StoreReader};

/// The first statement inside fixes what is seen.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// The name under which an audit connects.
const AUDIT: &str = "audit";

/// The picture. Its transaction ends with its connection.
#[derive(Debug)]
pub(super) struct PostgresReader {
    session: Session,
    plan: Arc<Plan>,
    schema: String,
    position: Position,
}

/// Opens a picture of tables as they are, whoever fills them. The right to read them suffices.
pub(crate) fn open_reader(
    target: &PostgresTarget,
    plan: &Arc<Plan>,
) -> Result<Box<dyn StoreReader>, StoreError> {
    let session = Session::open(target, AUDIT, Purpose::Read)?;
    let client = &session.client;
    session.wait("looking at the tables of", STATEMENT_TIMEOUT, async {
        client.batch_execute(BEGIN).await?;
        for mapping in &plan.mappings {
            let wrong = match fit::look(client, &target.schema, &mapping.into).await? {
                Found::Nothing => vec![format!(
                    "there is no such table in the schema '{}'",
                    target.schema
                )],
                // Whatever can be selected from can be compared.
                Found::Other(_) => Vec::new(),
                Found::Table(facts) => facts.missing(mapping),
            };
            if !wrong.is_empty() {
                return Err(tables::misfit(mapping, &wrong));
            }
        }
        Ok(())
    })?;
    Ok(Box::new(PostgresReader {
        session,
        plan: Arc::clone(plan),
        schema: target.schema.clone(),
        position: Position::ZERO,
    }))
}

impl PostgresReader {
    pub(super) fn open(target: &PostgresTarget, own: &Own) -> Result<Self, StoreError> {
        let session = Session::open(target, &own.sink, Purpose::Read)?;
        let client = &session.client;
        let found = session.wait("opening a picture of", STATEMENT_TIMEOUT, async {
            client.batch_execute(BEGIN).await?;
            own.read_position(client).await
        })?;
        let Some(found) = found else {
            return Err(StoreError::PositionMismatch {
                expected: Position::ZERO,
                found: None,
            });
        };
        Ok(Self {
            session,
            plan: Arc::clone(&own.plan),
            schema: own.schema.clone(),
            position: found.position,
        })
    }
}

impl StoreReader for PostgresReader {
    fn position(&self) -> Position {
        self.position
    }

    fn scan(&mut self, mapping: usize, each: EachRow<'_>) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        let kinds: Vec<ColumnType> = plan.columns.iter().map(|column| column.kind).collect();
        let sql = schema::copy_out(&self.schema, plan);
        let (session, client) = (&self.session, &self.session.client);
        let what = "scanning";
        let malformed = |cause: super::decode::Malformed| {
            Fault::Store(StoreError::Broken {
                what: format!("{what} {} in {}", plan.into, session.place),
                cause: cause.into(),
            })
        };
        // A table may be as large as it is; each piece has its time.
        session.wait(what, super::REBUILD_TIMEOUT, async {
            let stream = client.copy_out(&sql).await?;
            let mut stream = std::pin::pin!(stream);
            let mut copy = CopyStream::default();
            let mut row = Row::new(kinds.len());
            let mut each = |row: &Row| each(row) == ControlFlow::Continue(());
            loop {
                let next = tokio::time::timeout(STATEMENT_TIMEOUT, stream.next()).await;
                let Ok(next) = next else {
                    return Err(Fault::Store(error::unavailable(
                        format!("{what} {}", session.place),
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
        })
    }

    fn check_index(&mut self, _: usize, _: usize) -> Result<Option<IndexCheck>, StoreError> {
        Ok(None)
    }
}

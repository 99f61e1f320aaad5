//! PostgreSQL as a store: one writing connection per sink, one transaction per batch.
//!
//! A batch is sent without waiting for answers in between: the position's UPDATE, then the deletes
//! and upserts of every mapping, each as one statement over arrays. When all have succeeded the
//! transaction is committed. `synchronous_commit` is off: a crash of the server can lose the newest
//! transactions, rows and position together, and the log fills the gap.
//!
//! Bookkeeping in the schema, shared by all sinks that write into it:
//! - `onelog_position`: sink, the log's id, position (NULL until filled), epoch, a hash of the plan;
//! - `onelog_tables`: which tables onelog fills, for which sink (NULL: its sink was removed), and
//!   whether it made them;
//! - `onelog_new_…`: the tables of a rebuild under way.
//!
//! Whoever changes anything holds the position's row locked, so a takeover waits for the
//! transaction of its predecessor to end, and then fences it.

mod apply;
mod connect;
mod decode;
mod encode;
mod error;
mod fit;
mod kind;
mod numeric;
mod reader;
mod rebuild;
mod schema;
mod tables;

pub use self::kind::{KIND, PostgresKind, PostgresTarget};

use std::sync::Arc;

use onelog_record::Position;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use self::apply::Writer;
use self::connect::{Purpose, REBUILD_TIMEOUT, STATEMENT_TIMEOUT, Session};
use self::error::Fault;
use self::rebuild::Rebuild;
use onelog_mapping::{Plan, Row};
use onelog_store::{Batch, Change, Store, StoreError, StorePosition, StoreReader};

/// A PostgreSQL database that follows the log.
#[derive(Debug)]
pub struct PostgresStore {
    target: PostgresTarget,
    session: Session,
    own: Own,
    epoch: Option<u64>,
    advance: Option<Statement>,
    /// Of each mapping: its statements, once they were needed.
    writers: Vec<Option<Writer>>,
    row: Row,
    rebuild: Option<Rebuild>,
}

/// Whose the store is.
#[derive(Debug)]
struct Own {
    sink: String,
    log_id: String,
    plan: Arc<Plan>,
    /// Stands for the plan's fingerprint, which can be long.
    plan_id: String,
    schema: String,
}

/// What the steps of one transaction need.
struct Scope<'a> {
    client: &'a Client,
    own: &'a Own,
    epoch: u64,
    advance: &'a mut Option<Statement>,
    writers: &'a mut Vec<Option<Writer>>,
    row: &'a mut Row,
}

impl PostgresStore {
    /// Connects to the server; the database and the schema must be there.
    pub fn open(
        target: &PostgresTarget,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        let session = Session::open(target, sink, Purpose::Write)?;
        session.wait(
            "making the bookkeeping tables in",
            STATEMENT_TIMEOUT,
            tables::make_bookkeeping(&session.client, &target.schema),
        )?;
        Ok(Self {
            target: target.clone(),
            session,
            own: Own {
                sink: sink.to_owned(),
                log_id: log_id.to_owned(),
                plan_id: plan_id(&plan),
                schema: target.schema.clone(),
                plan: Arc::clone(&plan),
            },
            epoch: None,
            advance: None,
            writers: plan.mappings.iter().map(|_| None).collect(),
            row: Row::default(),
            rebuild: None,
        })
    }

    fn scope(&mut self) -> (&Session, Scope<'_>) {
        #[allow(clippy::expect_used)]
        let epoch = self
            .epoch
            .expect("the contract: take_over comes before every change");
        let scope = Scope {
            client: &self.session.client,
            own: &self.own,
            epoch,
            advance: &mut self.advance,
            writers: &mut self.writers,
            row: &mut self.row,
        };
        (&self.session, scope)
    }

    fn forget_statements(&mut self) {
        self.writers.iter_mut().for_each(|writer| *writer = None);
    }
}

fn plan_id(plan: &Plan) -> String {
    blake3::hash(plan.fingerprint().as_bytes()).to_hex()[..32].to_owned()
}

impl Store for PostgresStore {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        self.session.wait(
            "reading the position in",
            STATEMENT_TIMEOUT,
            self.own.read_position(&self.session.client),
        )
    }

    fn take_over(&mut self) -> Result<u64, StoreError> {
        let epoch = self.session.wait(
            "taking over",
            STATEMENT_TIMEOUT,
            self.own.take_over(&self.session.client),
        )?;
        self.epoch = Some(epoch);
        Ok(epoch)
    }

    fn check_target(&mut self) -> Result<(), StoreError> {
        let (client, own) = (&self.session.client, &self.own);
        self.session
            .wait("looking at the tables of", STATEMENT_TIMEOUT, async {
                for mapping in &own.plan.mappings {
                    tables::standing(client, own, mapping).await?;
                }
                Ok(())
            })
    }

    fn check_shape(&mut self) -> Result<(), StoreError> {
        let (client, own) = (&self.session.client, &self.own);
        self.session
            .wait("looking at the tables of", STATEMENT_TIMEOUT, async {
                for mapping in &own.plan.mappings {
                    tables::shape(client, own, mapping).await?;
                }
                Ok(())
            })
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let (session, mut scope) = self.scope();
        scope.apply(session, batch)
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        self.rebuild = None;
        let (session, scope) = self.scope();
        let begun = session.wait(
            "making new tables in",
            STATEMENT_TIMEOUT,
            in_transaction(scope.client, scope.begin_rebuild()),
        )?;
        self.rebuild = Some(begun);
        Ok(())
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        let rebuild = self.rebuild.take();
        let (session, mut scope) = self.scope();
        let client = scope.client;
        let loaded = session.wait(
            "loading rows into",
            STATEMENT_TIMEOUT,
            in_transaction(client, scope.load(rebuild.as_ref(), mapping, rows)),
        );
        self.rebuild = rebuild;
        loaded
    }

    fn finish_rebuild(&mut self, position: Position) -> Result<(), StoreError> {
        let rebuild = self.rebuild.take();
        self.forget_statements();
        let (session, scope) = self.scope();
        session.wait(
            "putting the new tables in place in",
            REBUILD_TIMEOUT,
            in_transaction(
                scope.client,
                scope.finish_rebuild(rebuild.as_ref(), position),
            ),
        )
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        let reader = reader::PostgresReader::open(&self.target, &self.own)?;
        Ok(Box::new(reader))
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        self.rebuild = None;
        self.forget_statements();
        let (session, scope) = self.scope();
        session.wait(
            "removing the sink from",
            STATEMENT_TIMEOUT,
            in_transaction(scope.client, scope.remove()),
        )?;
        self.epoch = None;
        Ok(())
    }
}

/// Runs `steps` in a transaction, which is rolled back when they fail.
async fn in_transaction<T>(
    client: &Client,
    steps: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    client.batch_execute("BEGIN").await?;
    match steps.await {
        Ok(value) => {
            client.batch_execute("COMMIT").await?;
            Ok(value)
        }
        Err(fault) => {
            // What failed is told; a connection that is gone has rolled back already.
            client.batch_execute("ROLLBACK").await.ok();
            Err(fault)
        }
    }
}

impl Own {
    async fn read_position(&self, client: &Client) -> Result<Option<StorePosition>, Fault> {
        let sql = format!(
            "SELECT log_id, position, epoch FROM {}
             WHERE sink = $1 AND plan = $2 AND position IS NOT NULL",
            schema::table(&self.schema, schema::POSITIONS)
        );
        let row = client
            .query_typed_opt(
                &sql,
                &[(&self.sink, Type::TEXT), (&self.plan_id, Type::TEXT)],
            )
            .await?;
        Ok(row.map(|row| StorePosition {
            log_id: row.get(0),
            position: Position(row.get::<_, i64>(1).cast_unsigned()),
            epoch: row.get::<_, i64>(2).cast_unsigned(),
        }))
    }

    /// Durable at once, so that no crash of the server lets two processes hold one epoch.
    async fn take_over(&self, client: &Client) -> Result<u64, Fault> {
        let name = schema::table(&self.schema, schema::POSITIONS);
        let sql = format!(
            "INSERT INTO {name} AS p (sink, log_id, position, epoch, plan)
             VALUES ($1, $2, NULL, 1, $3)
             ON CONFLICT (sink) DO UPDATE SET epoch = p.epoch + 1, plan = excluded.plan,
               position = CASE WHEN p.plan = excluded.plan THEN p.position END
             RETURNING epoch"
        );
        in_transaction(client, async {
            client
                .batch_execute("SET LOCAL synchronous_commit = on")
                .await?;
            let row = client
                .query_typed_one(
                    &sql,
                    &[
                        (&self.sink, Type::TEXT),
                        (&self.log_id, Type::TEXT),
                        (&self.plan_id, Type::TEXT),
                    ],
                )
                .await?;
            Ok(row.get::<_, i64>(0).cast_unsigned())
        })
        .await
    }
}

impl Scope<'_> {
    /// Locks the sink's row against a takeover until the transaction ends.
    async fn check_epoch(&self) -> Result<(), Fault> {
        let sql = format!(
            "SELECT epoch FROM {} WHERE sink = $1 FOR UPDATE",
            schema::table(&self.own.schema, schema::POSITIONS)
        );
        let row = self
            .client
            .query_typed_opt(&sql, &[(&self.own.sink, Type::TEXT)])
            .await?;
        let found = row.map(|row| row.get::<_, i64>(0).cast_unsigned());
        Err(Fault::Store(match found {
            Some(found) if found == self.epoch => return Ok(()),
            Some(found) => StoreError::Fenced {
                ours: self.epoch,
                found,
            },
            None => StoreError::PositionMismatch {
                expected: Position::ZERO,
                found: None,
            },
        }))
    }

    /// Forgets the sink; its rows stay.
    async fn remove(self) -> Result<(), Fault> {
        self.check_epoch().await?;
        for mapping in &self.own.plan.mappings {
            let name = schema::table(&self.own.schema, &schema::staging_name(mapping));
            let sql = format!("DROP TABLE IF EXISTS {name}");
            self.client.batch_execute(&sql).await?;
        }
        let owners = schema::table(&self.own.schema, schema::OWNERS);
        let positions = schema::table(&self.own.schema, schema::POSITIONS);
        // What onelog has not made, or is there no longer, no later sink may take for its own.
        let sql = format!(
            "DELETE FROM {owners} WHERE sink = $1
               AND (NOT made OR to_regclass(format('%I.%I', $2, name)) IS NULL)"
        );
        self.client
            .execute_typed(
                &sql,
                &[(&self.own.sink, Type::TEXT), (&self.own.schema, Type::TEXT)],
            )
            .await?;
        for sql in [
            format!("UPDATE {owners} SET sink = NULL WHERE sink = $1"),
            format!("DELETE FROM {positions} WHERE sink = $1"),
        ] {
            self.client
                .execute_typed(&sql, &[(&self.own.sink, Type::TEXT)])
                .await?;
        }
        Ok(())
    }
}

/// A position as PostgreSQL's bigint.
fn signed(position: Position) -> Result<i64, Fault> {
    i64::try_from(position.get()).map_err(|cause| {
        Fault::Store(StoreError::Broken {
            what: format!("position {position} does not fit into a bigint"),
            cause: cause.into(),
        })
    })
}

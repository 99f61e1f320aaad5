//! The store: one writing connection, and the steps of the contract on it.

use std::sync::Arc;

use onelog_mapping::{EXISTING, Plan, Row};
use onelog_store::{Batch, Change, LogPlace, Store, StoreError, StorePosition, StoreReader};
use tokio_postgres::Client;

use crate::bookkeeping::{self, Identity};
use crate::connection::{Connection, Purpose, REBUILD_TIMEOUT, STATEMENT_TIMEOUT, in_transaction};
use crate::ddl::existing;
use crate::kind::PostgresTarget;
use crate::reader::PostgresReader;
use crate::rebuild::Rebuild;
use crate::write::Writer;

/// A PostgreSQL database that follows the log.
#[derive(Debug)]
pub struct PostgresStore {
    target: PostgresTarget,
    connection: Connection,
    identity: Identity,
    epoch: Option<u64>,
    /// Of each mapping: its statements, once they were needed.
    writers: Vec<Option<Writer>>,
    row: Row,
    rebuild: Option<Rebuild>,
}

/// What the steps of one transaction need.
pub(crate) struct Scope<'a> {
    pub(crate) client: &'a Client,
    pub(crate) identity: &'a Identity,
    pub(crate) epoch: u64,
    pub(crate) writers: &'a mut Vec<Option<Writer>>,
    pub(crate) row: &'a mut Row,
}

impl PostgresStore {
    /// Connects to the server; the database and the schema must be there.
    pub fn open(
        target: &PostgresTarget,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        let connection = Connection::open(target, sink, Purpose::Write)?;
        connection.wait(
            "making the bookkeeping tables in",
            STATEMENT_TIMEOUT,
            bookkeeping::create_bookkeeping(&connection.client, &target.schema),
        )?;
        Ok(Self {
            target: target.clone(),
            connection,
            identity: Identity {
                sink: sink.to_owned(),
                log_id: log_id.to_owned(),
                plan_id: plan_id(&plan),
                schema: target.schema.clone(),
                plan: Arc::clone(&plan),
            },
            epoch: None,
            writers: plan.mappings.iter().map(|_| None).collect(),
            row: Row::default(),
            rebuild: None,
        })
    }

    fn scope(&mut self) -> (&Connection, Scope<'_>) {
        #[allow(clippy::expect_used)]
        let epoch = self
            .epoch
            .expect("the contract: take_over comes before every change");
        let scope = Scope {
            client: &self.connection.client,
            identity: &self.identity,
            epoch,
            writers: &mut self.writers,
            row: &mut self.row,
        };
        (&self.connection, scope)
    }

    fn forget_statements(&mut self) {
        self.writers.iter_mut().for_each(|writer| *writer = None);
    }
}

impl Store for PostgresStore {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        self.connection.wait(
            "reading the position in",
            STATEMENT_TIMEOUT,
            in_transaction(
                &self.connection.client,
                self.identity.read_position(&self.connection.client),
            ),
        )
    }

    fn followed_log(&mut self) -> Result<Option<String>, StoreError> {
        self.connection.wait(
            "reading the position in",
            STATEMENT_TIMEOUT,
            in_transaction(
                &self.connection.client,
                self.identity.followed_log(&self.connection.client),
            ),
        )
    }

    fn take_over_from(&mut self, from: Option<&str>) -> Result<u64, StoreError> {
        let epoch = self.connection.wait(
            "taking over",
            STATEMENT_TIMEOUT,
            self.identity.take_over(&self.connection.client, from),
        )?;
        self.epoch = Some(epoch);
        Ok(epoch)
    }

    fn check_target(&mut self) -> Result<(), StoreError> {
        let (client, identity) = (&self.connection.client, &self.identity);
        self.connection.wait(
            "looking at the tables of",
            STATEMENT_TIMEOUT,
            in_transaction(client, async {
                for mapping in &identity.plan.mappings {
                    existing::check_target(client, identity, mapping).await?;
                }
                Ok(())
            }),
        )
    }

    fn foreign_tables(&mut self) -> Result<Vec<usize>, StoreError> {
        let (client, identity) = (&self.connection.client, &self.identity);
        self.connection.wait(
            "looking at the tables of",
            STATEMENT_TIMEOUT,
            in_transaction(client, async {
                let mut foreign = Vec::new();
                for (n, mapping) in identity.plan.mappings.iter().enumerate() {
                    if !mapping.options.flag(EXISTING) {
                        continue;
                    }
                    let owner = bookkeeping::table_owner(client, identity, &mapping.into).await?;
                    let is_known = owner.is_some_and(|owner| {
                        owner.made || owner.sink.as_ref() == Some(&identity.sink)
                    });
                    if !is_known {
                        foreign.push(n);
                    }
                }
                Ok(foreign)
            }),
        )
    }

    fn check_shape(&mut self) -> Result<(), StoreError> {
        let (client, identity) = (&self.connection.client, &self.identity);
        self.connection.wait(
            "looking at the tables of",
            STATEMENT_TIMEOUT,
            in_transaction(client, async {
                for mapping in &identity.plan.mappings {
                    existing::check_shape(client, identity, mapping).await?;
                }
                Ok(())
            }),
        )
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let (connection, mut scope) = self.scope();
        scope.apply(connection, batch)
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        self.rebuild = None;
        let (connection, scope) = self.scope();
        let begun = connection.wait(
            "making new tables in",
            STATEMENT_TIMEOUT,
            in_transaction(scope.client, scope.begin_rebuild()),
        )?;
        self.rebuild = Some(begun);
        Ok(())
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        let rebuild = self.rebuild.take();
        let (connection, mut scope) = self.scope();
        let client = scope.client;
        let loaded = connection.wait(
            "loading rows into",
            STATEMENT_TIMEOUT,
            in_transaction(client, scope.load(rebuild.as_ref(), mapping, rows)),
        );
        self.rebuild = rebuild;
        loaded
    }

    fn finish_rebuild(&mut self, place: LogPlace) -> Result<(), StoreError> {
        let rebuild = self.rebuild.take();
        self.forget_statements();
        let (connection, scope) = self.scope();
        connection.wait(
            "putting the new tables in place in",
            REBUILD_TIMEOUT,
            in_transaction(scope.client, scope.finish_rebuild(rebuild.as_ref(), place)),
        )
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        let reader = PostgresReader::of_sink(&self.target, &self.identity)?;
        Ok(Box::new(reader))
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        self.rebuild = None;
        self.forget_statements();
        let (connection, scope) = self.scope();
        connection.wait(
            "removing the sink from",
            STATEMENT_TIMEOUT,
            in_transaction(scope.client, async {
                scope.check_epoch().await?;
                scope.drop_staging().await?;
                scope.forget_sink().await
            }),
        )?;
        self.epoch = None;
        Ok(())
    }
}
fn plan_id(plan: &Plan) -> String {
    blake3::hash(plan.fingerprint().as_bytes()).to_hex()[..32].to_owned()
}

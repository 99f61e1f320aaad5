//! The store: one writing connection, and the steps of the contract on it.

use std::sync::Arc;

use onelog_mapping::{EXISTING, Plan, Row};
use onelog_store::{
    Batch, Change, Followed, Guard, LogPlace, Store, StoreError, StorePosition, StoreReader,
    failpoint,
};
use tokio_postgres::Client;

use crate::bookkeeping::{self, Identity};
use crate::connection::{Connection, Purpose, REBUILD_TIMEOUT, STATEMENT_TIMEOUT, in_transaction};
use crate::ddl::existing;
use crate::error::Fault;
use crate::kind::PostgresTarget;
use crate::reader::PostgresReader;
use crate::rebuild::Rebuild;
use crate::write::Writer;

const LOADING: &str = "loading rows into";
const LOOKING: &str = "looking at the tables of";
/// How many rows of a load are looked at one by one within the time of a statement.
const ROWS_EACH_TIMEOUT: usize = 256;

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
    /// What the next end of a rebuild may do, by mapping.
    guards: Vec<Guard>,
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
            identity: Identity::new(sink, log_id, &plan, &target.schema),
            epoch: None,
            writers: plan.mappings.iter().map(|_| None).collect(),
            row: Row::default(),
            rebuild: None,
            guards: Vec::new(),
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

    fn followed(&mut self) -> Result<Option<Followed>, StoreError> {
        self.connection.wait(
            "reading the position in",
            STATEMENT_TIMEOUT,
            in_transaction(
                &self.connection.client,
                self.identity.followed(&self.connection.client),
            ),
        )
    }

    fn set_first_epoch(&mut self, epoch: u64) {
        self.identity.first_epoch = epoch;
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
            LOOKING,
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
            LOOKING,
            STATEMENT_TIMEOUT,
            in_transaction(client, async {
                let mut foreign = Vec::new();
                for (n, mapping) in identity.plan.mappings.iter().enumerate() {
                    let owner = bookkeeping::table_owner(client, identity, &mapping.into).await?;
                    let is_ours = owner
                        .as_ref()
                        .is_some_and(|owner| owner.sink.as_ref() == Some(&identity.sink));
                    // What onelog made for a sink that is gone may be taken, unless the mapping calls
                    // it a table that is there already.
                    let is_free =
                        owner.is_some_and(|owner| owner.made) && !mapping.options.flag(EXISTING);
                    if !is_ours && !is_free {
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
            LOOKING,
            STATEMENT_TIMEOUT,
            in_transaction(client, async {
                let mut all = Ok(());
                for mapping in &identity.plan.mappings {
                    match existing::check_shape(client, identity, mapping).await {
                        // What was noticed of this table and of the others is to be kept.
                        Err(Fault::Store(error @ StoreError::SchemaMismatch { .. })) => {
                            all = all.and(Err(error));
                        }
                        checked => checked.map(drop)?,
                    }
                }
                Ok(all)
            }),
        )?
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let (connection, mut scope) = self.scope();
        let applied = scope.apply(connection, batch);
        if matches!(applied, Err(StoreError::SchemaMismatch { .. })) {
            // It is of one table; what others have become is to be kept as well.
            self.check_shape()?;
        }
        applied
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
        let loading = in_transaction(client, scope.load(rebuild.as_ref(), mapping, rows));
        let mut loaded = connection.try_wait(LOADING, STATEMENT_TIMEOUT, loading);
        if matches!(&loaded, Err(Fault::Sql(error)) if Fault::is_rejected_row_error(error)) {
            // Each COPY is bounded; so many of them may take longer than one.
            let limit = STATEMENT_TIMEOUT * (rows.len() / ROWS_EACH_TIMEOUT + 1) as u32;
            let looking = scope.refused_of_load(rebuild.as_ref(), mapping, rows);
            let found = connection.try_wait(LOADING, limit, in_transaction(client, looking));
            // Where all pass alone, what was said of them together says more.
            loaded = found.and(loaded);
        }
        self.rebuild = rebuild;
        loaded.map_err(|fault| fault.into_store_error(LOADING, &self.connection.place))
    }

    fn guard(&mut self, guards: &[Guard]) {
        self.guards = guards.to_vec();
    }

    fn counts_deletes(&self) -> bool {
        self.rebuild.as_ref().is_some_and(Rebuild::merges_all)
    }

    fn keep(&mut self, mapping: usize, keys: &[&[u8]]) -> Result<bool, StoreError> {
        let rebuild = self.rebuild.take();
        let (connection, mut scope) = self.scope();
        let client = scope.client;
        let keeping = in_transaction(client, scope.keep(rebuild.as_ref(), mapping, keys));
        let kept = connection.wait(LOADING, REBUILD_TIMEOUT, keeping);
        self.rebuild = rebuild;
        kept
    }

    fn finish_rebuild(&mut self, place: LogPlace) -> Result<(), StoreError> {
        let mut rebuild = self.rebuild.take();
        let guards = std::mem::take(&mut self.guards);
        self.forget_statements();
        let (connection, mut scope) = self.scope();
        let client = scope.client;
        let finished = connection.wait(
            "putting the new tables in place in",
            REBUILD_TIMEOUT,
            in_transaction(
                client,
                scope.finish_rebuild(rebuild.as_ref(), &guards, place),
            ),
        );
        if let Err(StoreError::Refused(refused)) = &finished {
            let left_out = in_transaction(client, scope.leave_out(rebuild.as_ref(), refused));
            connection.wait(LOADING, REBUILD_TIMEOUT, left_out)?;
            rebuild.iter_mut().for_each(Rebuild::count_refusal);
            self.rebuild = rebuild;
        }
        finished?;
        failpoint::hit(&self.identity.sink, "after_swap");
        Ok(())
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

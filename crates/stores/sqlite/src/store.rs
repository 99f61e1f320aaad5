//! The store: one writing connection, and a transaction for each step of the contract.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use onelog_mapping::{Plan, Row};
use onelog_store::{
    Batch, Change, Followed, Guard, LogPlace, Store, StoreError, StorePosition, StoreReader,
    failpoint,
};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::bookkeeping::{self, Identity, read_position};
use crate::connection::{self, FileIdentity};
use crate::ddl::existing;
use crate::error::classify;
use crate::reader::SqliteReader;
use crate::renewed::Known;
use crate::write::Statements;

#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    file: Option<FileIdentity>,
    identity: Identity,
    plan: Arc<Plan>,
    statements: Vec<Statements>,
    connection: Connection,
    epoch: Option<u64>,
    known: Known,
    /// What the next end of a rebuild may do, by mapping.
    guards: Vec<Guard>,
    row: Row,
}

impl SqliteStore {
    /// Opens the file, which is made when it is not there; its folder must be.
    pub fn open(
        path: &Path,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        let (connection, file) = connection::open(path)?;
        bookkeeping::create_bookkeeping(&connection)
            .map_err(|error| classify("opening", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            identity: Identity {
                sink: sink.to_owned(),
                log_id: log_id.to_owned(),
                plan_id: plan.fingerprint(),
                first_epoch: 1,
            },
            statements: plan.mappings.iter().map(Statements::new).collect(),
            plan,
            connection,
            epoch: None,
            known: Known::default(),
            guards: Vec::new(),
            row: Row::default(),
        })
    }

    /// A file that was replaced or removed behind our back would swallow every write silently.
    fn check_identity(&self) -> Result<(), StoreError> {
        connection::check_identity(&self.path, self.file)
    }

    fn begin(&mut self) -> Result<(Transaction<'_>, Scope<'_>), StoreError> {
        self.check_identity()?;
        #[allow(clippy::expect_used)]
        let epoch = self
            .epoch
            .expect("the contract: take_over comes before every change");
        let path = self.path.as_path();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| classify("beginning a transaction in", path, error))?;
        let scope = Scope {
            path,
            file: self.file,
            identity: &self.identity,
            plan: &self.plan,
            statements: &self.statements,
            row: &mut self.row,
            known: &mut self.known,
            epoch,
        };
        Ok((transaction, scope))
    }
}

impl SqliteStore {
    fn apply_batch(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let (transaction, mut scope) = self.begin()?;
        scope.apply(&transaction, batch)?;
        failpoint::hit(&scope.identity.sink, "before_commit");
        scope.commit(transaction)
    }

    fn swap(&mut self, place: LogPlace) -> Result<(), StoreError> {
        let guards = std::mem::take(&mut self.guards);
        let (transaction, mut scope) = self.begin()?;
        scope.finish_rebuild(&transaction, &guards, place)?;
        failpoint::hit(&scope.identity.sink, "before_swap");
        scope.commit(transaction)?;
        failpoint::hit(&self.identity.sink, "after_swap");
        Ok(())
    }

    fn check_definitions(&mut self) -> Result<(), StoreError> {
        for mapping in &self.plan.mappings {
            existing::check_shape(&self.connection, &self.path, mapping)?;
        }
        self.known
            .check(&self.connection, &self.path, &self.plan, &self.identity)
    }

    /// Of a table that does not fit, keeps what may have changed its values, in a step of its own.
    fn keep_noticed(&mut self, error: StoreError) -> StoreError {
        let Some(epoch) = self.epoch else {
            return error;
        };
        if !matches!(error, StoreError::SchemaMismatch { .. }) {
            return error;
        }
        self.known = Known::default();
        let (path, plan, identity) = (&self.path, &self.plan, &self.identity);
        match Known::note_narrowed(&self.connection, path, plan, identity, epoch) {
            Ok(()) => error,
            Err(failed) => failed,
        }
    }

    /// What a step has come to know of the tables is wrong where it did not take place; the file says
    /// what is right.
    fn forget_unless(&mut self, is_done: bool) {
        if !is_done {
            self.known = Known::default();
        }
    }
}

/// What a transaction needs of the store while the connection is lent out.
pub(crate) struct Scope<'a> {
    pub(crate) path: &'a Path,
    pub(crate) file: Option<FileIdentity>,
    pub(crate) identity: &'a Identity,
    pub(crate) plan: &'a Plan,
    pub(crate) statements: &'a [Statements],
    pub(crate) row: &'a mut Row,
    pub(crate) known: &'a mut Known,
    pub(crate) epoch: u64,
}

impl Scope<'_> {
    /// Keeps what is known of the tables beside the position.
    pub(crate) fn keep_known(&mut self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        self.known
            .record(transaction, self.identity, self.epoch)
            .map_err(|error| classify("moving the position in", self.path, error))
    }

    fn commit(&self, transaction: Transaction<'_>) -> Result<(), StoreError> {
        transaction
            .commit()
            .map_err(|error| classify("committing to", self.path, error))?;
        // What is reported as written must be in the file that readers open.
        connection::check_identity(self.path, self.file)
    }
}

impl Store for SqliteStore {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        self.check_identity()?;
        read_position(&self.connection, &self.identity)
            .map_err(|error| classify("reading the position in", &self.path, error))
    }

    fn followed(&mut self) -> Result<Option<Followed>, StoreError> {
        self.check_identity()?;
        bookkeeping::followed(&self.connection, &self.identity.sink)
            .map_err(|error| classify("reading the position in", &self.path, error))
    }

    fn set_first_epoch(&mut self, epoch: u64) {
        self.identity.first_epoch = epoch;
    }

    fn take_over_from(&mut self, from: Option<&str>) -> Result<u64, StoreError> {
        self.check_identity()?;
        let taken = bookkeeping::take_over(&self.connection, &self.identity, from)
            .map_err(|error| classify("taking over", &self.path, error))?;
        let Some(epoch) = taken else {
            return Err(StoreError::OtherLog {
                ours: self.identity.log_id.clone(),
                found: self
                    .followed()?
                    .map_or_else(String::new, |found| found.log_id),
            });
        };
        self.epoch = Some(epoch);
        self.known = Known::default();
        Ok(epoch)
    }

    fn check_target(&mut self) -> Result<(), StoreError> {
        for mapping in &self.plan.mappings {
            existing::check_target(&self.connection, &self.path, &self.identity.sink, mapping)?;
        }
        Ok(())
    }

    fn check_shape(&mut self) -> Result<(), StoreError> {
        self.check_definitions()
            .map_err(|error| self.keep_noticed(error))?;
        let Some(epoch) = self.epoch else {
            return Ok(());
        };
        self.known
            .record(&self.connection, &self.identity, epoch)
            .map_err(|error| classify("recording the tables of", &self.path, error))
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let applied = self.apply_batch(batch);
        self.forget_unless(applied.is_ok());
        applied.map_err(|error| self.keep_noticed(error))
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        let (transaction, scope) = self.begin()?;
        scope.begin_rebuild(&transaction)?;
        scope.commit(transaction)
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        let (transaction, mut scope) = self.begin()?;
        scope.load(&transaction, mapping, rows)?;
        scope.commit(transaction)
    }

    fn guard(&mut self, guards: &[Guard]) {
        self.guards = guards.to_vec();
    }

    fn counts_deletes(&self) -> bool {
        true
    }

    fn finish_rebuild(&mut self, place: LogPlace) -> Result<(), StoreError> {
        self.connection.flush_prepared_statement_cache();
        let finished = self.swap(place);
        self.forget_unless(finished.is_ok());
        finished
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        self.check_identity()?;
        let reader = SqliteReader::of_sink(&self.path, &self.identity, Arc::clone(&self.plan))?;
        Ok(Box::new(reader))
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        self.connection.flush_prepared_statement_cache();
        let (transaction, scope) = self.begin()?;
        scope.check_epoch(&transaction)?;
        scope
            .drop_staging(&transaction)
            .and_then(|()| scope.forget_sink(&transaction))
            .map_err(|error| classify("removing the sink from", scope.path, error))?;
        scope.commit(transaction)?;
        self.epoch = None;
        Ok(())
    }
}

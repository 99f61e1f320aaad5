//! The store: one connection, and the steps of the contract on it.

use std::sync::Arc;

use mysql_async::Value;
use onelog_mapping::{EXISTING, MappingPlan, Plan, Row};
use onelog_store::{
    Batch, Change, Followed, Guard, KnownTables, LogPlace, Remedy, Store, StoreError,
    StorePosition, StoreReader, failpoint,
};

use crate::bookkeeping::{self, Identity, Raised, Record};
use crate::connection::Connection;
use crate::ddl::existing::{self, TargetTable};
use crate::ddl::foreign::ForeignRows;
use crate::ddl::shape;
use crate::ddl::user_table::warn_of_triggers;
use crate::encode::Decimal;
use crate::error::{NO_COLUMN, NO_TABLE};
use crate::kind::MysqlTarget;
use crate::names::{Names, quote};
use crate::reader::MysqlReader;
use crate::rebuild::{EXISTING_TABLES, MADE_TABLES, Rebuild};
use crate::write::statements::Statements;
use crate::write::{self, Method, Trouble, Way, Writer, key_of};

/// How often a step that lost against another transaction begins again at once.
const RACES_MAX: u32 = 4;
/// How often a takeover looks again because a rival came in between.
const TAKEOVERS_MAX: u32 = 16;

/// A MariaDB or MySQL database that follows the log.
#[derive(Debug)]
pub struct MysqlStore {
    pub(crate) connection: Connection,
    pub(crate) target: MysqlTarget,
    pub(crate) plan: Arc<Plan>,
    pub(crate) names: Names,
    pub(crate) identity: Identity,
    pub(crate) method: Method,
    pub(crate) statements: Vec<Statements>,
    /// What the tables are like; looked up before the first batch.
    pub(crate) facts: Option<Vec<TargetTable>>,
    /// The tables as they were when they were last looked at. `None`: this session has not looked.
    pub(crate) known: Option<KnownTables>,
    /// Whether this session has named the triggers of the tables.
    has_warned: bool,
    /// What the next end of a rebuild may do, by mapping.
    guards: Vec<Guard>,
    /// Keys whose rows the end of the rebuild leaves as they are, by mapping.
    kept: Vec<Vec<Value>>,
    /// The rows of tables that others filled, as they were before they were counted.
    foreign: Vec<ForeignRows>,
    /// How often the end of the rebuild was refused rows.
    refusals: u32,
    pub(crate) row: Row,
}

impl MysqlStore {
    /// Connects; the database must be there.
    pub fn open(
        target: &MysqlTarget,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        let connection = Connection::open(target)?;
        let method = Method::of(connection.flavour());
        let mut store = Self {
            connection,
            target: target.clone(),
            names: Names::new(sink),
            identity: Identity {
                sink: sink.to_owned(),
                log_id: log_id.to_owned(),
                plan_id: bookkeeping::plan_id(&plan),
                epoch: 0,
                owner: String::new(),
                first_epoch: 1,
            },
            plan,
            method,
            statements: Vec::new(),
            facts: None,
            known: None,
            has_warned: false,
            guards: Vec::new(),
            kept: Vec::new(),
            foreign: Vec::new(),
            refusals: 0,
            row: Row::default(),
        };
        store.use_method(method);
        Ok(store)
    }

    /// Sends rows as MySQL gets them, in the spelling that MariaDB knows.
    #[cfg(any(test, feature = "failpoints"))]
    pub fn use_many_rows(&mut self) {
        self.use_method(Method::ManyRows { alias: false });
    }

    fn use_method(&mut self, method: Method) {
        self.method = method;
        self.statements = self
            .plan
            .mappings
            .iter()
            .map(|mapping| Statements::new(mapping, &self.names.batch(&mapping.into), method))
            .collect();
    }

    fn rebuild(&mut self) -> Rebuild<'_> {
        Rebuild {
            connection: &mut self.connection,
            plan: &self.plan,
            names: &self.names,
            identity: &self.identity,
            guards: &self.guards,
            kept: &self.kept,
            foreign: &self.foreign,
            refusals: self.refusals,
            undeleted: Vec::new(),
        }
    }

    /// An earlier version backfilled tables and did not record whose they are.
    fn own_backfilled_tables(&mut self) -> Result<(), StoreError> {
        let doing = "recording the owners of tables in";
        bookkeeping::make_owners(&mut self.connection)
            .map_err(|fault| self.connection.store_error(doing, fault))?;
        self.rebuild().claim(doing, EXISTING_TABLES)?;
        self.rebuild().claim(doing, MADE_TABLES)
    }

    fn check_taken_over(&self) {
        assert!(
            self.identity.epoch > 0,
            "the contract: take_over comes before every change"
        );
    }

    /// Looks at the tables once, and makes what staging needs.
    fn look_at_tables(&mut self) -> Result<Vec<TargetTable>, StoreError> {
        if let Some(facts) = &self.facts {
            return Ok(facts.clone());
        }
        let mut all = Vec::with_capacity(self.plan.mappings.len());
        for mapping in &self.plan.mappings {
            let facts = existing::target_table(&mut self.connection, mapping)?;
            if facts.second_unique {
                let batch = quote(&self.names.batch(&mapping.into));
                for sql in [
                    format!("DROP TEMPORARY TABLE IF EXISTS {batch}"),
                    format!(
                        "CREATE TEMPORARY TABLE {batch} LIKE {}",
                        quote(&mapping.into)
                    ),
                ] {
                    self.connection
                        .execute("making a temporary table in", &sql)?;
                }
            }
            all.push(facts);
        }
        self.facts = Some(all.clone());
        Ok(all)
    }

    fn check_place(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let (table, sink) = (self.names.position(), &self.identity.sink);
        let found =
            bookkeeping::read_record(&mut self.connection, &table, sink, "").map_err(|fault| {
                self.connection
                    .store_error("reading the position in", fault)
            })?;
        bookkeeping::check_epoch(found.as_ref(), &self.identity)?;
        bookkeeping::check_position(found, &self.identity, batch.from)
    }

    fn warn_of_triggers(&mut self) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.has_warned, true) {
            return Ok(());
        }
        for mapping in self
            .plan
            .mappings
            .iter()
            .filter(|m| m.options.flag(EXISTING))
        {
            warn_of_triggers(&mut self.connection, mapping)?;
        }
        Ok(())
    }

    /// Fails where a table of these mappings is another one than was looked at.
    pub(crate) fn check_unchanged(
        &mut self,
        facts: &[TargetTable],
        mappings: impl Iterator<Item = usize>,
    ) -> Result<(), Trouble> {
        for mapping in mappings {
            let into = &self.plan.mappings[mapping].into;
            if shape::definition(&mut self.connection, into)? != facts[mapping].definition {
                return Err(Trouble::Redefined(mapping));
            }
        }
        Ok(())
    }

    /// All at once; where a row is refused, otherwise.
    fn attempt_some_way(&mut self, batch: &Batch, facts: &[TargetTable]) -> Result<(), Trouble> {
        match self.attempt(batch, facts, Way::Many) {
            Err(Trouble::Fault(_, fault)) if fault.is_rejected_row() => {
                // A definition that is new may refuse a row, which is not to blame then.
                self.check_unchanged(facts, 0..facts.len())?;
                self.apply_otherwise(batch, facts, &fault)
            }
            // A row that cannot be sent at all, and perhaps not the only one.
            Err(Trouble::Store(StoreError::Refused(_))) => {
                self.attempt(batch, facts, Way::OneByOne)
            }
            other => other,
        }
    }

    pub(crate) fn writer<'w>(&'w mut self, facts: &'w [TargetTable]) -> Writer<'w> {
        Writer {
            connection: &mut self.connection,
            plan: &self.plan,
            statements: &self.statements,
            facts,
            method: self.method,
            row: &mut self.row,
        }
    }

    fn trouble(&mut self, what: &str, trouble: Trouble) -> StoreError {
        match trouble {
            Trouble::Store(error) => error,
            Trouble::Redefined(mapping) => {
                shape::redefined(&self.connection, &self.plan.mappings[mapping].into)
            }
            Trouble::Fault(mapping, fault)
                if matches!(fault.code(), Some(NO_TABLE | NO_COLUMN)) =>
            {
                let mapping = &self.plan.mappings[mapping];
                let what = fault.message(self.connection.flavour());
                StoreError::mismatch(mapping, what, Remedy::of(mapping))
            }
            Trouble::Fault(_, fault) => self.connection.store_error(what, fault),
        }
    }

    fn load_rows(
        &mut self,
        mapping: usize,
        rows: &[Change],
        facts: &[TargetTable],
        one_by_one: bool,
    ) -> Result<(), Trouble> {
        self.connection
            .execute("beginning a transaction in", "START TRANSACTION")?;
        let loaded = self.load_inside(mapping, rows, facts, one_by_one);
        if loaded.is_err() {
            self.connection.roll_back();
            return loaded;
        }
        self.connection.execute("committing to", "COMMIT")?;
        Ok(())
    }

    fn load_inside(
        &mut self,
        mapping: usize,
        rows: &[Change],
        facts: &[TargetTable],
        one_by_one: bool,
    ) -> Result<(), Trouble> {
        self.connection.check_read_only("loading rows into")?;
        let table = self.names.position();
        let found = bookkeeping::read_record(
            &mut self.connection,
            &table,
            &self.identity.sink,
            "LOCK IN SHARE MODE",
        )
        .map_err(|fault| {
            self.connection
                .store_error("reading the position in", fault)
        })?;
        bookkeeping::check_epoch(found.as_ref(), &self.identity)?;
        let target = self.rebuild().target(mapping);
        let mut writer = self.writer(facts);
        match one_by_one {
            true => write::load_one_by_one(&mut writer, mapping, &target, rows),
            false => write::load(&mut writer, mapping, &target, rows),
        }
    }

    /// What the tables that are being loaded are like.
    fn facts_of_new_tables(&mut self) -> Result<Vec<TargetTable>, StoreError> {
        if self.plan.mappings.iter().any(|m| m.options.flag(EXISTING)) {
            return self.look_at_tables();
        }
        let facts = |mapping: &MappingPlan| TargetTable {
            decimals: vec![Decimal::default(); mapping.columns.len()],
            ..TargetTable::default()
        };
        Ok(self.plan.mappings.iter().map(facts).collect())
    }

    fn remove_inside(&mut self) -> Result<(), StoreError> {
        let removing = "removing the sink from";
        let table = self.names.position();
        let found = bookkeeping::read_record(
            &mut self.connection,
            &table,
            &self.identity.sink,
            "FOR UPDATE",
        )
        .map_err(|fault| self.connection.store_error(removing, fault))?;
        bookkeeping::check_epoch(found.as_ref(), &self.identity)?;
        // DDL would end the transaction that holds off a successor, so it has its own connection.
        let mut other = Connection::open(&self.target)?;
        let mut rebuild = Rebuild {
            connection: &mut other,
            plan: &self.plan,
            names: &self.names,
            identity: &self.identity,
            guards: &[],
            kept: &[],
            foreign: &[],
            refusals: 0,
            undeleted: Vec::new(),
        };
        rebuild.drop_new(u64::MAX)?;
        rebuild.drop_old(u64::MAX)?;
        let gone = self.connection.prepared(
            &format!("DELETE FROM {} WHERE sink = ?", quote(&table)),
            mysql_async::Params::Positional(vec![self.identity.sink.clone().into()]),
        );
        gone.map_err(|fault| self.connection.store_error(removing, fault))?;
        bookkeeping::forget_owner(&mut self.connection, &self.identity.sink)
            .map_err(|fault| self.connection.store_error(removing, fault))?;
        self.connection.execute(removing, "COMMIT")?;
        rebuild.drop_position();
        Ok(())
    }
}

impl MysqlStore {
    fn record(&mut self) -> Result<Option<Record>, StoreError> {
        let table = self.names.position();
        let found = bookkeeping::read_record(&mut self.connection, &table, &self.identity.sink, "");
        let what = "reading the position in";
        found.map_err(|fault| self.connection.store_error(what, fault))
    }
}

impl Store for MysqlStore {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        let found = self.record()?;
        Ok(found.and_then(|found| found.position_under(&self.identity.plan_id)))
    }

    fn followed(&mut self) -> Result<Option<Followed>, StoreError> {
        let found = self.record()?;
        Ok(found.map(Record::followed))
    }

    fn set_first_epoch(&mut self, epoch: u64) {
        self.identity.first_epoch = epoch;
    }

    fn take_over_from(&mut self, from: Option<&str>) -> Result<u64, StoreError> {
        let taking = "taking over";
        let table = self.names.position();
        (self.facts, self.known) = (None, None);
        self.identity.owner = format!("{:032x}", rand::random::<u128>());
        let sql =
            bookkeeping::create_bookkeeping(self.connection.flavour(), &table, &self.identity.sink);
        for _ in 0..TAKEOVERS_MAX {
            self.connection.execute(taking, &sql)?;
            bookkeeping::add_columns(&mut self.connection, &table)
                .map_err(|fault| self.connection.store_error(taking, fault))?;
            let (connection, identity) = (&mut self.connection, &self.identity);
            let raised = bookkeeping::raise_epoch(connection, &table, identity, from)
                .map_err(|fault| self.connection.store_error(taking, fault))?;
            let epoch = match raised {
                Raised::To(epoch) => epoch,
                Raised::Rival => continue,
                Raised::OtherLog(found) => {
                    return Err(StoreError::OtherLog {
                        ours: self.identity.log_id.clone(),
                        found,
                    });
                }
            };
            failpoint::hit(&self.identity.sink, "raised");
            self.rebuild().drop_new(epoch)?;
            let found =
                bookkeeping::read_record(&mut self.connection, &table, &self.identity.sink, "")
                    .map_err(|fault| self.connection.store_error(taking, fault))?;
            let Some(found) = found else { continue };
            if found.owner != self.identity.owner && found.epoch <= epoch {
                // An earlier takeover swapped its tables in meanwhile, our mark went with the old.
                continue;
            }
            self.identity.epoch = epoch;
            let (connection, sink) = (&mut self.connection, &self.identity.sink);
            bookkeeping::release_other_names(connection, sink, &self.plan, false)
                .map_err(|fault| self.connection.store_error(taking, fault))?;
            if found.position_under(&self.identity.plan_id).is_some() {
                self.own_backfilled_tables()?;
            }
            if let Err(error) = self.rebuild().drop_old(found.generation) {
                tracing::debug!(sink = self.identity.sink, %error, "replaced tables are dropped later");
            }
            return Ok(epoch);
        }
        Err(self
            .connection
            .unavailable(taking, "rivals take this sink over again and again"))
    }

    fn check_target(&mut self) -> Result<(), StoreError> {
        for mapping in &self.plan.mappings {
            existing::check_target(&mut self.connection, &self.identity.sink, mapping)?;
        }
        Ok(())
    }

    fn foreign_tables(&mut self) -> Result<Vec<usize>, StoreError> {
        let mut foreign = Vec::new();
        self.foreign.clear();
        for (n, mapping) in self.plan.mappings.iter().enumerate() {
            if !mapping.options.flag(EXISTING) {
                continue;
            }
            let owner = bookkeeping::name_owner(&mut self.connection, &mapping.into, "").map_err(
                |fault| {
                    self.connection
                        .store_error("looking at the tables of", fault)
                },
            )?;
            let is_backfilled =
                |owner: bookkeeping::NameOwner| owner.sink == self.identity.sink && !owner.made;
            if !owner.is_some_and(is_backfilled) {
                foreign.push(n);
                let rows = ForeignRows::read(&mut self.connection, mapping, "")?;
                self.foreign.push(rows);
            }
        }
        Ok(foreign)
    }

    fn check_shape(&mut self) -> Result<(), StoreError> {
        self.facts = None;
        let checked = self.look_at_tables().and_then(|facts| {
            self.check_definitions()?;
            self.check_renewed(&facts)
        });
        if checked.is_err() {
            self.facts = None;
        }
        checked
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.check_taken_over();
        if self.facts.is_none() || self.known.is_none() {
            if let Err(error) = self.check_shape() {
                // Where the batch is not ours to apply, that is to be said.
                self.check_place(batch)?;
                return Err(error);
            }
            self.warn_of_triggers()?;
        }
        let mut facts = self.look_at_tables()?;
        let mut races = 0;
        let trouble = loop {
            match self.attempt_some_way(batch, &facts) {
                Ok(()) => {
                    self.follow_batch(batch);
                    return Ok(());
                }
                Err(Trouble::Fault(_, fault)) if fault.is_lost_race() && races < RACES_MAX => {}
                Err(Trouble::Redefined(_)) if races < RACES_MAX => {
                    // Where the tables still fit.
                    self.check_shape()?;
                    facts = self.look_at_tables()?;
                }
                Err(trouble) => break trouble,
            }
            races += 1;
        };
        Err(self.trouble("writing rows to", trouble))
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        self.check_taken_over();
        self.facts = None;
        self.kept = vec![Vec::new(); self.plan.mappings.len()];
        self.refusals = 0;
        self.rebuild().begin()
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        self.check_taken_over();
        let facts = self.facts_of_new_tables()?;
        let loaded = match self.load_rows(mapping, rows, &facts, false) {
            Err(Trouble::Fault(_, fault)) if fault.is_rejected_row() => {
                self.load_rows(mapping, rows, &facts, true)
            }
            Err(Trouble::Store(StoreError::Refused(_))) => {
                self.load_rows(mapping, rows, &facts, true)
            }
            other => other,
        };
        loaded.map_err(|trouble| match trouble {
            Trouble::Fault(_, fault) if fault.code() == Some(NO_TABLE) => {
                self.connection.unavailable(
                    "loading rows into",
                    "the new tables were dropped meanwhile; the rebuild begins again",
                )
            }
            other => self.trouble("loading rows into", other),
        })
    }

    fn guard(&mut self, guards: &[Guard]) {
        self.guards = guards.to_vec();
    }

    fn counts_deletes(&self) -> bool {
        self.plan.mappings.iter().any(|m| m.options.flag(EXISTING))
    }

    fn keep(&mut self, mapping: usize, keys: &[&[u8]]) -> Result<bool, StoreError> {
        self.check_taken_over();
        let plan = &self.plan.mappings[mapping];
        self.kept[mapping] = keys.iter().filter_map(|key| key_of(plan, key)).collect();
        Ok(self.rebuild().merges())
    }

    fn finish_rebuild(&mut self, place: LogPlace) -> Result<(), StoreError> {
        self.check_taken_over();
        self.facts = None;
        let mut rebuild = self.rebuild();
        let finished = rebuild.finish(place);
        let undeleted = std::mem::take(&mut rebuild.undeleted);
        if matches!(&finished, Err(StoreError::Refused(_))) {
            self.refusals += 1;
            for (mapping, key) in undeleted {
                self.kept[mapping].push(key);
            }
        }
        // What was backfilled is known from that very step on, and the store has it.
        self.known = None;
        finished
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        let reader = MysqlReader::of_sink(
            &self.target,
            &self.identity.sink,
            &self.identity.plan_id,
            Arc::clone(&self.plan),
        )?;
        Ok(Box::new(reader))
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        self.check_taken_over();
        let removed = self
            .connection
            .execute("removing the sink from", "START TRANSACTION")
            .and_then(|_| self.remove_inside());
        if removed.is_err() {
            self.connection.roll_back();
        } else {
            self.identity.epoch = 0;
        }
        removed
    }
}

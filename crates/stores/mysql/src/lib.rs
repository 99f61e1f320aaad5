//! MariaDB and MySQL as a store: one connection per sink, one InnoDB transaction per batch.
//!
//! Bookkeeping in the database, all of it named `onelog_…` (see `names`):
//! - `onelog_position_…`: one table per sink with one row: the log's id, the position (NULL until
//!   filled), the epoch and its owner's mark, the plan, the generation of the tables. A table of
//!   its own, because a rebuild swaps it together with the rows' tables; see `rebuild`.
//! - the comment of each table that onelog makes says for which sink;
//! - `onelog_new_…`, `onelog_old_…`, `onelog_pin_…`: tables of a rebuild, and of readers.
//!
//! A row that the server refuses undoes the whole transaction; then the batch is applied again row
//! by row, which names the record, or finds an order in which the rows do not stand in each other's
//! way.

mod connection;
mod existing;
mod kind;
mod names;
mod position;
mod reader;
mod rebuild;
mod rows;
mod schema;
mod write;

pub use self::kind::{KIND, MysqlKind, MysqlTarget};

use std::sync::Arc;

use onelog_record::Position;

use self::connection::{Fault, Link};
use self::names::{Names, quote};
use self::position::{Identity, NO_COLUMN, NO_TABLE};
use self::reader::MysqlReader;
use self::rebuild::Rebuild;
use self::schema::Facts;
use self::write::{Method, Statements, Trouble, Writer};
use onelog_mapping::{EXISTING, Plan, Row};
use onelog_store::{Batch, Change, Store, StoreError, StorePosition, StoreReader, failpoint};

/// How often a step that lost against another transaction begins again at once.
const RACES_MAX: u32 = 4;
/// How often a takeover looks again because a rival came in between.
const TAKEOVERS_MAX: u32 = 16;

/// A MariaDB or MySQL database that follows the log.
#[derive(Debug)]
pub struct MysqlStore {
    link: Link,
    target: MysqlTarget,
    plan: Arc<Plan>,
    names: Names,
    who: Identity,
    method: Method,
    statements: Vec<Statements>,
    /// What the tables are like; looked up before the first batch.
    facts: Option<Vec<Facts>>,
    row: Row,
}

/// How a batch is brought into the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Last images, many at once.
    Many,
    /// Last images, one by one, to name the one that is refused.
    OneByOne,
    /// All images in the order of the log.
    InOrder,
    /// Every row that changes is deleted, then inserted.
    Anew,
}

impl MysqlStore {
    /// Connects; the database must be there.
    pub fn open(
        target: &MysqlTarget,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Self, StoreError> {
        let link = Link::open(target)?;
        let method = Method::of(link.flavour());
        let fingerprint = blake3::hash(plan.fingerprint().as_bytes());
        let mut store = Self {
            link,
            target: target.clone(),
            names: Names::new(sink),
            who: Identity {
                sink: sink.to_owned(),
                log_id: log_id.to_owned(),
                plan: fingerprint.to_hex().to_string(),
                epoch: 0,
                owner: String::new(),
            },
            plan,
            method,
            statements: Vec::new(),
            facts: None,
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
            link: &mut self.link,
            plan: &self.plan,
            names: &self.names,
            who: &self.who,
        }
    }

    fn check_taken_over(&self) {
        assert!(
            self.who.epoch > 0,
            "the contract: take_over comes before every change"
        );
    }

    /// Looks at the tables once, and makes what staging needs.
    fn look_at_tables(&mut self) -> Result<Vec<Facts>, StoreError> {
        if let Some(facts) = &self.facts {
            return Ok(facts.clone());
        }
        let mut all = Vec::with_capacity(self.plan.mappings.len());
        for mapping in &self.plan.mappings {
            let facts = schema::facts(&mut self.link, mapping)?;
            if facts.second_unique {
                let batch = quote(&self.names.batch(&mapping.into));
                for sql in [
                    format!("DROP TEMPORARY TABLE IF EXISTS {batch}"),
                    format!(
                        "CREATE TEMPORARY TABLE {batch} LIKE {}",
                        quote(&mapping.into)
                    ),
                ] {
                    self.link.execute("making a temporary table in", &sql)?;
                }
            }
            all.push(facts);
        }
        self.facts = Some(all.clone());
        Ok(all)
    }

    fn writer<'w>(&'w mut self, facts: &'w [Facts]) -> Writer<'w> {
        Writer {
            link: &mut self.link,
            plan: &self.plan,
            statements: &self.statements,
            facts,
            method: self.method,
            row: &mut self.row,
        }
    }

    /// One attempt at a batch, in one transaction.
    fn attempt(&mut self, batch: &Batch, facts: &[Facts], way: Way) -> Result<(), Trouble> {
        self.link
            .execute("beginning a transaction in", "START TRANSACTION")?;
        let applied = self.apply_inside(batch, facts, way);
        if applied.is_err() {
            self.link.roll_back();
            return applied;
        }
        failpoint::hit(&self.who.sink, "before_commit");
        self.link.execute("committing to", "COMMIT")?;
        Ok(())
    }

    fn apply_inside(&mut self, batch: &Batch, facts: &[Facts], way: Way) -> Result<(), Trouble> {
        let table = self.names.position();
        position::advance(&mut self.link, &table, &self.who, batch.from, batch.to)?;
        let last = || {
            let all = batch.changes.iter().enumerate();
            let pairs = all.flat_map(|(n, changes)| changes.iter().map(move |change| (n, change)));
            pairs.collect::<Vec<_>>()
        };
        let mut writer = self.writer(facts);
        match way {
            Way::Many => writer.many(&batch.changes),
            Way::Anew => writer.anew(&batch.changes),
            Way::InOrder => writer.one_by_one(batch.in_order.iter().map(|(n, c)| (*n, c))),
            Way::OneByOne => {
                let mut pairs = last();
                // As in the attempt before: deletes first.
                pairs.sort_by_key(|(_, change)| change.value.is_some());
                writer.one_by_one(pairs.into_iter())
            }
        }
    }

    /// A row is refused. Whether it is one by itself, or stands in the way of another, is found out
    /// by other ways to the same rows.
    fn apply_otherwise(
        &mut self,
        batch: &Batch,
        facts: &[Facts],
        fault: &Fault,
    ) -> Result<(), Trouble> {
        // Unique and foreign keys; 1048 is the guard of an upsert.
        let between_rows = matches!(fault.code(), Some(1048 | 1062 | 1216 | 1217 | 1451 | 1452));
        if !between_rows {
            return self.attempt(batch, facts, Way::OneByOne);
        }
        let refused = match self.attempt(batch, facts, Way::InOrder) {
            Err(Trouble::Store(StoreError::Refused(refused))) => refused,
            other => return other,
        };
        if !facts.iter().all(|facts| facts.renewable) {
            return Err(Trouble::Store(StoreError::Refused(refused)));
        }
        match self.attempt(batch, facts, Way::Anew) {
            Err(Trouble::Fault(_, fault)) if fault.is_of_a_row() => {
                Err(Trouble::Store(StoreError::Refused(refused)))
            }
            other => other,
        }
    }

    fn trouble(&mut self, what: &str, trouble: Trouble) -> StoreError {
        match trouble {
            Trouble::Store(error) => error,
            Trouble::Fault(mapping, fault)
                if matches!(fault.code(), Some(NO_TABLE | NO_COLUMN)) =>
            {
                StoreError::SchemaMismatch {
                    into: self.plan.mappings[mapping].into.clone(),
                    what: fault.words(self.link.flavour()),
                }
            }
            Trouble::Fault(_, fault) => self.link.error(what, fault),
        }
    }

    fn load_rows(
        &mut self,
        mapping: usize,
        rows: &[Change],
        facts: &[Facts],
        one_by_one: bool,
    ) -> Result<(), Trouble> {
        self.link
            .execute("beginning a transaction in", "START TRANSACTION")?;
        let loaded = self.load_inside(mapping, rows, facts, one_by_one);
        if loaded.is_err() {
            self.link.roll_back();
            return loaded;
        }
        self.link.execute("committing to", "COMMIT")?;
        Ok(())
    }

    fn load_inside(
        &mut self,
        mapping: usize,
        rows: &[Change],
        facts: &[Facts],
        one_by_one: bool,
    ) -> Result<(), Trouble> {
        let table = self.names.position();
        let found = position::read(&mut self.link, &table, &self.who.sink, "LOCK IN SHARE MODE")
            .map_err(|fault| self.link.error("reading the position in", fault))?;
        position::check(found.as_ref(), &self.who)?;
        let target = self.rebuild().target(mapping);
        let mut writer = self.writer(facts);
        match one_by_one {
            true => write::load_one_by_one(&mut writer, mapping, &target, rows),
            false => write::load(&mut writer, mapping, &target, rows),
        }
    }

    /// What the tables that are being filled are like.
    fn facts_of_new_tables(&mut self) -> Result<Vec<Facts>, StoreError> {
        if self.plan.mappings.iter().any(|m| m.options.flag(EXISTING)) {
            return self.look_at_tables();
        }
        let facts = |mapping: &onelog_mapping::MappingPlan| Facts {
            decimals: vec![rows::Decimal::default(); mapping.columns.len()],
            ..Facts::default()
        };
        Ok(self.plan.mappings.iter().map(facts).collect())
    }

    fn remove_inside(&mut self) -> Result<(), StoreError> {
        let removing = "removing the sink from";
        let table = self.names.position();
        let found = position::read(&mut self.link, &table, &self.who.sink, "FOR UPDATE")
            .map_err(|fault| self.link.error(removing, fault))?;
        position::check(found.as_ref(), &self.who)?;
        // DDL would end the transaction that holds off a successor, so it has its own connection.
        let mut other = Link::open(&self.target)?;
        let mut rebuild = Rebuild {
            link: &mut other,
            plan: &self.plan,
            names: &self.names,
            who: &self.who,
        };
        rebuild.drop_new(u64::MAX)?;
        rebuild.drop_old(u64::MAX)?;
        rebuild.release()?;
        let gone = self.link.prepared(
            &format!("DELETE FROM {} WHERE sink = ?", quote(&table)),
            mysql_async::Params::Positional(vec![self.who.sink.clone().into()]),
        );
        gone.map_err(|fault| self.link.error(removing, fault))?;
        self.link.execute(removing, "COMMIT")?;
        rebuild.drop_position();
        Ok(())
    }
}

impl Store for MysqlStore {
    fn position(&mut self) -> Result<Option<StorePosition>, StoreError> {
        let table = self.names.position();
        let found = position::read(&mut self.link, &table, &self.who.sink, "")
            .map_err(|fault| self.link.error("reading the position in", fault))?;
        Ok(found.and_then(|found| found.stands_at(&self.who.plan)))
    }

    fn take_over(&mut self) -> Result<u64, StoreError> {
        let taking = "taking over";
        let table = self.names.position();
        self.facts = None;
        self.who.owner = format!("{:032x}", rand::random::<u128>());
        let sql = position::create_table(self.link.flavour(), &table, &self.who.sink);
        for _ in 0..TAKEOVERS_MAX {
            self.link.execute(taking, &sql)?;
            let raised = position::raise(&mut self.link, &table, &self.who)
                .map_err(|fault| self.link.error(taking, fault))?;
            let Some(epoch) = raised else { continue };
            failpoint::hit(&self.who.sink, "raised");
            self.rebuild().drop_new(epoch)?;
            let found = position::read(&mut self.link, &table, &self.who.sink, "")
                .map_err(|fault| self.link.error(taking, fault))?;
            let Some(found) = found else { continue };
            if found.owner != self.who.owner && found.epoch <= epoch {
                // An earlier takeover swapped its tables in meanwhile, our mark went with the old.
                continue;
            }
            self.who.epoch = epoch;
            if let Err(error) = self.rebuild().drop_old(found.generation) {
                tracing::debug!(sink = self.who.sink, %error, "replaced tables are dropped later");
            }
            return Ok(epoch);
        }
        Err(self
            .link
            .unavailable(taking, "rivals take this sink over again and again"))
    }

    fn check_target(&mut self) -> Result<(), StoreError> {
        for mapping in &self.plan.mappings {
            schema::check_target(&mut self.link, &self.who.sink, mapping)?;
        }
        Ok(())
    }

    fn check_shape(&mut self) -> Result<(), StoreError> {
        self.facts = None;
        for mapping in &self.plan.mappings {
            schema::check_shape(&mut self.link, mapping)?;
        }
        Ok(())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.check_taken_over();
        let facts = self.look_at_tables()?;
        let mut races = 0;
        let trouble = loop {
            match self.attempt(batch, &facts, Way::Many) {
                Ok(()) => return Ok(()),
                Err(Trouble::Fault(_, fault)) if fault.is_a_lost_race() && races < RACES_MAX => {
                    races += 1;
                }
                Err(Trouble::Fault(_, fault)) if fault.is_of_a_row() => {
                    match self.apply_otherwise(batch, &facts, &fault) {
                        Ok(()) => return Ok(()),
                        Err(trouble) => break trouble,
                    }
                }
                Err(trouble) => break trouble,
            }
        };
        Err(self.trouble("writing rows to", trouble))
    }

    fn begin_rebuild(&mut self) -> Result<(), StoreError> {
        self.check_taken_over();
        self.rebuild().begin()
    }

    fn load(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        self.check_taken_over();
        let facts = self.facts_of_new_tables()?;
        let loaded = match self.load_rows(mapping, rows, &facts, false) {
            Err(Trouble::Fault(_, fault)) if fault.is_of_a_row() => {
                self.load_rows(mapping, rows, &facts, true)
            }
            other => other,
        };
        loaded.map_err(|trouble| match trouble {
            Trouble::Fault(_, fault) if fault.code() == Some(NO_TABLE) => self.link.unavailable(
                "loading rows into",
                "the new tables were dropped meanwhile; the rebuild begins again",
            ),
            other => self.trouble("loading rows into", other),
        })
    }

    fn finish_rebuild(&mut self, position: Position) -> Result<(), StoreError> {
        self.check_taken_over();
        self.facts = None;
        self.rebuild().finish(position)
    }

    fn reader(&mut self) -> Result<Box<dyn StoreReader>, StoreError> {
        let reader = MysqlReader::of_sink(
            &self.target,
            &self.who.sink,
            &self.who.plan,
            Arc::clone(&self.plan),
        )?;
        Ok(Box::new(reader))
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        self.check_taken_over();
        let removed = self
            .link
            .execute("removing the sink from", "START TRANSACTION")
            .and_then(|_| self.remove_inside());
        if removed.is_err() {
            self.link.roll_back();
        } else {
            self.who.epoch = 0;
        }
        removed
    }
}

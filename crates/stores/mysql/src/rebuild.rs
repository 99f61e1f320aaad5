//! Putting new tables in the place of old ones.
//!
//! DDL cannot be part of a transaction here, so the swap is *one statement*: `RENAME TABLE` takes
//! the sink's tables **and the table with its position** from one generation to the next. It is
//! atomic for readers and through a crash of the server (MariaDB from 10.6, MySQL from 8.0).
//!
//! ```text
//!   begin    CREATE onelog_pin_…_<g+1>, onelog_new_…_<epoch>, onelog_new_…_<epoch>_<table>
//!   load     INSERT into the new tables, COMMIT, as often as it takes
//!   finish   the new position into onelog_new_…_<epoch>; look at the epoch;
//!            RENAME onelog_position_… TO onelog_old_…_<g>, onelog_new_…_<epoch> TO onelog_position_…,
//!                   orders TO onelog_old_…_<g>_<orders>, onelog_new_…_<epoch>_<orders> TO orders
//!   after    count what the old tables of <g> have and the new ones have not: too much: RENAME back;
//!            DROP the pin and the old tables of <g>, once no reader holds them
//! ```
//!
//! Killed before the RENAME: the old generation stays, and the next takeover drops what was
//! prepared. Killed behind it: the new one stays, and the next takeover drops what was replaced.
//!
//! *A zombie* could look at the epoch, fall asleep, be taken over, and rename. Therefore a takeover
//! raises the epoch, **drops what earlier takeovers prepared**, and looks whether its own mark is
//! still in the position. The zombie's RENAME then comes either before the drop, and the takeover
//! finds a foreign mark and begins again on top of it; or after, and fails for want of its tables.
//! The same of its RENAME back, which needs the old tables: it comes before the look, and the takeover
//! begins again; or behind it, and the successor finds an older epoch, which makes it take over again;
//! or fails, because the takeover has dropped them.
//! What it prepares later than that never gets that far: each of its steps looks at the epoch first.
//!
//! *Two sinks that make one table.* Each looks whose the table is, and either could rename in the
//! moment behind that. Therefore a sink takes the name first, as a row of `onelog_tables`, and keeps it
//! until it is removed or puts tables of other names in place. The key of that table has one owner
//! at any moment; a rename is that one's alone, and needs no lock.
//!
//! *With an existing table* (`existing`) nothing is renamed, because its indexes, keys and rights
//! must stay: the staged rows are merged in one transaction, together with the position.

mod merge;
mod refused;
mod replaced;

use std::time::Duration;

use mysql_async::{Params, Value};
use onelog_mapping::{EXISTING, Plan};
use onelog_store::{Guard, KnownTables, LogPlace, Remedy, StoreError, Witnesses, failpoint};

use crate::bookkeeping::{self, Identity, Mark, Record, names_with_prefix};
use crate::connection::{Connection, LOCK_WAIT_SECONDS, STATEMENT_TIMEOUT};
use crate::ddl::foreign::ForeignRows;
use crate::ddl::{self, existing, hidden};
use crate::error::{Fault, LOCK_WAIT_TIMEOUT, NO_TABLE};
use crate::names::{Names, number_behind, quote};
use crate::rebuild::replaced::Exchange;
use crate::renewed::rows;

/// How long a swap, or a drop, waits for the users of a table. Short, because new users queue up
/// behind it.
const SWAP_WAIT_SECONDS: u32 = 1;
/// How often the swap is tried; in between the users get on.
const SWAP_ATTEMPTS_MAX: u32 = 30;
const SWAP_PAUSE: Duration = Duration::from_secs(1);

/// Tables that were there before onelog. Their names are taken in the transaction that backfills
/// them, because a sink that has the name of such a table has backfilled it.
pub(crate) const EXISTING_TABLES: bool = true;
/// Tables that onelog makes. Their names are taken before anything is made.
pub(crate) const MADE_TABLES: bool = false;

/// What the steps of a rebuild need.
pub(crate) struct Rebuild<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) plan: &'a Plan,
    pub(crate) names: &'a Names,
    pub(crate) identity: &'a Identity,
    /// What the end may do, by mapping.
    pub(crate) guards: &'a [Guard],
    /// Keys whose rows the end leaves as they are, by mapping.
    pub(crate) kept: &'a [Vec<Value>],
    /// The rows of tables that others filled, as they were before they were counted.
    pub(crate) foreign: &'a [ForeignRows],
    /// How often the end was refused rows.
    pub(crate) refusals: u32,
    /// Keys whose rows the end was refused to delete, by mapping.
    pub(crate) undeleted: Vec<(usize, Value)>,
}

impl Rebuild<'_> {
    fn fault(&self, what: &str, fault: Fault) -> StoreError {
        self.connection.store_error(what, fault)
    }

    /// Whether staged rows are merged, instead of tables swapped.
    pub(crate) fn merges(&self) -> bool {
        self.plan.mappings.iter().any(|m| m.options.flag(EXISTING))
    }

    /// The sink's row, if it still is ours.
    fn own_record(&mut self) -> Result<Record, StoreError> {
        let table = self.names.position();
        let found = bookkeeping::read_record(self.connection, &table, &self.identity.sink, "")
            .map_err(|fault| self.fault("reading the position in", fault))?;
        bookkeeping::check_epoch(found.as_ref(), self.identity).cloned()
    }

    /// Makes the new tables.
    pub(crate) fn begin(&mut self) -> Result<(), StoreError> {
        self.connection.check_read_only("making new tables in")?;
        let record = self.own_record()?;
        for mapping in &self.plan.mappings {
            existing::check_target(self.connection, &self.identity.sink, mapping)?;
        }
        self.check_hidden_keys()?;
        let making = "making new tables in";
        let owners = bookkeeping::make_owners(self.connection);
        owners.map_err(|fault| self.fault(making, fault))?;
        self.claim(making, MADE_TABLES)?;
        if self.merges() {
            self.make_missing(record.generation)?;
        }
        self.drop_new(self.identity.epoch + 1)?;
        self.drop_old(record.generation)?;
        let flavour = self.connection.flavour();
        let epoch = self.identity.epoch;
        let mut statements = Vec::new();
        if !self.merges() {
            statements.push(format!(
                "CREATE TABLE IF NOT EXISTS {} (held TINYINT) ENGINE=InnoDB COMMENT='onelog: held by readers'",
                quote(&self.names.pin(record.generation + 1))
            ));
            let table = self.names.new_position(epoch);
            statements.push(bookkeeping::create_bookkeeping(
                flavour,
                &table,
                &self.identity.sink,
            ));
        }
        for mapping in &self.plan.mappings {
            let name = self.names.new_table(epoch, &mapping.into);
            if !self.merges() {
                let (sink, generation) = (&self.identity.sink, record.generation + 1);
                let comment = Mark::to_comment(sink, &mapping.into, generation);
                statements.push(ddl::create_table(flavour, mapping, &name, &comment));
                continue;
            }
            let (name, like) = (quote(&name), quote(&mapping.into));
            let columns = existing::columns(self.connection, &mapping.into)?;
            let [key, offset] = existing::record_columns(&columns).map(|name| quote(&name));
            statements.push(format!("CREATE TABLE {name} LIKE {like}"));
            statements.push(format!(
                "ALTER TABLE {name} ADD COLUMN {key} BLOB NULL, ADD COLUMN {offset} BIGINT UNSIGNED NULL"
            ));
        }
        for sql in statements {
            self.connection.execute(making, &sql)?;
        }
        Ok(())
    }

    /// Fails where a foreign key that this user does not see refers to a table that is replaced.
    fn check_hidden_keys(&mut self) -> Result<(), StoreError> {
        if self.merges() {
            return Ok(());
        }
        let mut mappings = self.plan.mappings.iter();
        mappings.try_for_each(|mapping| hidden::check(self.connection, mapping, &mapping.into))
    }

    /// Tables that onelog makes beside existing ones are made empty, or must fit.
    fn make_missing(&mut self, generation: u64) -> Result<(), StoreError> {
        for mapping in &self.plan.mappings {
            if mapping.options.flag(EXISTING) {
                continue;
            }
            let Some(found) = existing::find_table(self.connection, &mapping.into)? else {
                let comment = Mark::to_comment(&self.identity.sink, &mapping.into, generation);
                let sql =
                    ddl::create_table(self.connection.flavour(), mapping, &mapping.into, &comment);
                self.connection.execute("making new tables in", &sql)?;
                continue;
            };
            let wrong = existing::mismatches(self.connection, mapping, &found)?;
            if !wrong.is_empty() {
                let what = format!(
                    "{} (in a sink with an existing table no table can be replaced: drop this one, or give it a sink of its own)",
                    wrong.join("; ")
                );
                return Err(StoreError::mismatch(mapping, what, Remedy::Said));
            }
        }
        Ok(())
    }

    /// The table that a mapping's rows are loaded into.
    pub(crate) fn target(&self, mapping: usize) -> String {
        self.names
            .new_table(self.identity.epoch, &self.plan.mappings[mapping].into)
    }

    /// Puts the new tables in place, and the position with them.
    pub(crate) fn finish(&mut self, place: LogPlace) -> Result<(), StoreError> {
        self.connection
            .check_read_only("putting the new tables in place in")?;
        match self.merges() {
            true => self.merge(place),
            false => self.swap(place),
        }?;
        let sink = &self.identity.sink;
        let released = bookkeeping::release_other_names(self.connection, sink, self.plan, true);
        if let Err(error) = released {
            tracing::debug!(sink, %error, "names of former tables are given up later");
        }
        Ok(())
    }

    fn swap(&mut self, place: LogPlace) -> Result<(), StoreError> {
        let record = self.own_record()?;
        let doing = "putting the new tables in place in";
        self.claim(doing, MADE_TABLES)?;
        for mapping in &self.plan.mappings {
            // A name that was taken since the rebuild began stays with its owner.
            existing::check_target(self.connection, &self.identity.sink, mapping)?;
        }
        let known = self.backfilled(|rebuild, mapping| rebuild.target(mapping))?;
        self.write_new_position(place, record.generation + 1, &known)
            .map_err(|fault| self.fault(doing, fault))?;
        let exchange = self.exchange(record.generation)?;
        self.check_hidden_keys()?;
        self.own_record()?;
        failpoint::hit(&self.identity.sink, "before_swap");
        self.rename_patiently(&exchange.forth())?;
        failpoint::hit(&self.identity.sink, "after_swap");
        self.check_replaced(&exchange, record.generation)?;
        if let Err(error) = self.drop_old(record.generation + 1) {
            tracing::warn!(sink = self.identity.sink, %error, "replaced tables are dropped later");
        }
        Ok(())
    }

    /// What is known of the tables that have been backfilled, which these are by mapping, to be kept
    /// in the step that puts them in place.
    fn backfilled(&mut self, table: impl Fn(&Self, usize) -> String) -> Result<String, StoreError> {
        let mut known = KnownTables::read(None, self.plan);
        for (n, mapping) in self.plan.mappings.iter().enumerate() {
            let table = table(self, n);
            let found = rows(self.connection, mapping, &table, Vec::new())?;
            known.0[n].witnesses = Witnesses::of(mapping, &found);
        }
        Ok(known.to_text())
    }

    fn write_new_position(
        &mut self,
        place: LogPlace,
        generation: u64,
        known: &str,
    ) -> Result<(), Fault> {
        let table = quote(&self.names.new_position(self.identity.epoch));
        self.connection
            .statement(STATEMENT_TIMEOUT, &format!("DELETE FROM {table}"))?;
        self.connection.prepared(
            &format!(
                "INSERT INTO {table}
                   (sink, log_id, position, epoch, owner, plan, generation, chain, witnesses)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            ),
            Params::Positional(vec![
                Value::from(&self.identity.sink),
                Value::from(&self.identity.log_id),
                Value::from(place.position.get()),
                Value::from(self.identity.epoch),
                Value::from(&self.identity.owner),
                Value::from(&self.identity.plan_id),
                Value::from(generation),
                Value::from(place.chain),
                Value::from(known),
            ]),
        )?;
        Ok(())
    }

    fn exchange(&mut self, generation: u64) -> Result<Exchange, StoreError> {
        let epoch = self.identity.epoch;
        let mut steps = vec![
            (self.names.position(), self.names.old_position(generation)),
            (self.names.new_position(epoch), self.names.position()),
        ];
        for mapping in &self.plan.mappings {
            let into = &mapping.into;
            if existing::find_table(self.connection, into)?.is_some() {
                steps.push((into.clone(), self.names.old_table(generation, into)));
            }
            steps.push((self.names.new_table(epoch, into), into.clone()));
        }
        Ok(Exchange(steps))
    }

    fn rename_patiently(&mut self, sql: &str) -> Result<(), StoreError> {
        let place = "putting the new tables in place in";
        for _ in 0..SWAP_ATTEMPTS_MAX {
            let fault = match hurried(self.connection, sql) {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            if fault.code() != Some(LOCK_WAIT_TIMEOUT) {
                // A successor may have dropped what we prepared.
                if fault.code() == Some(NO_TABLE) {
                    self.own_record()?;
                }
                return Err(self.fault(place, fault));
            }
            self.connection
                .run(STATEMENT_TIMEOUT, async |_| {
                    tokio::time::sleep(SWAP_PAUSE).await;
                    Ok(())
                })
                .map_err(|fault| self.fault(place, fault))?;
            self.own_record()?;
        }
        Err(self.connection.unavailable(
            place,
            "some transaction has been using the old tables all the time; end it (SHOW PROCESSLIST), the rebuild begins again",
        ))
    }

    /// Gives this sink the names of its tables, of those that are `existing` or of the others.
    pub(crate) fn claim(&mut self, doing: &str, existing: bool) -> Result<(), StoreError> {
        let mappings = self.plan.mappings.iter();
        for mapping in mappings.filter(|m| m.options.flag(EXISTING) == existing) {
            let sink = &self.identity.sink;
            let owner = bookkeeping::claim(self.connection, &mapping.into, sink, !existing);
            let owner = owner.map_err(|fault| self.fault(doing, fault))?;
            if let Some(owner) = owner.filter(|owner| owner.sink != *sink) {
                return Err(bookkeeping::not_owner(&mapping.into, &owner.sink));
            }
        }
        Ok(())
    }

    /// Drops what takeovers before `epoch` prepared.
    pub(crate) fn drop_new(&mut self, epoch: u64) -> Result<(), StoreError> {
        let prefix = self.names.new_prefix();
        let mut names = names_with_prefix(self.connection, &prefix)?;
        names.retain(|name| number_behind(&prefix, name).is_some_and(|of| of < epoch));
        if names.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = names.iter().map(|name| quote(name)).collect();
        let sql = format!("DROP TABLE IF EXISTS {}", names.join(", "));
        self.connection
            .execute("dropping unfinished tables in", &sql)?;
        Ok(())
    }

    /// Drops what rebuilds left beside the tables of `generation`, where no reader holds it; what is
    /// held waits for the next time.
    pub(crate) fn drop_old(&mut self, generation: u64) -> Result<(), StoreError> {
        let mut by_generation: Vec<(u64, Vec<String>)> = Vec::new();
        let (pins, tables) = (self.names.pin_prefix(), self.names.old_prefix());
        for prefix in [&pins, &tables] {
            for name in names_with_prefix(self.connection, prefix)? {
                let Some(of) = number_behind(prefix, &name) else {
                    continue;
                };
                // Its tables have their own names; older ones of this number are stale.
                if of == generation && prefix == &pins {
                    continue;
                }
                match by_generation.iter_mut().find(|(known, _)| *known == of) {
                    Some((_, names)) => names.push(quote(&name)),
                    None => by_generation.push((of, vec![quote(&name)])),
                }
            }
        }
        for (_, names) in by_generation {
            let sql = format!("DROP TABLE IF EXISTS {}", names.join(", "));
            match hurried(self.connection, &sql) {
                Ok(()) => {}
                Err(fault) if fault.code() == Some(LOCK_WAIT_TIMEOUT) => {}
                Err(fault) => return Err(self.fault("dropping replaced tables in", fault)),
            }
        }
        Ok(())
    }

    /// Drops the table of the position once the sink's row is gone. One that is in use just now
    /// stays, empty. A successor that made the row anew in this very moment finds no position, and
    /// loads its tables again.
    pub(crate) fn drop_position(&mut self) {
        let table = self.names.position();
        let sink = &self.identity.sink;
        if !matches!(
            bookkeeping::read_record(self.connection, &table, sink, ""),
            Ok(None)
        ) {
            return;
        }
        let sql = format!("DROP TABLE IF EXISTS {}", quote(&table));
        if let Err(fault) = hurried(self.connection, &sql) {
            let why = fault.message(self.connection.flavour());
            tracing::debug!(
                sink,
                table,
                why,
                "the empty table of a removed sink's position stays"
            );
        }
    }
}

/// Runs a statement that waits only shortly for the users of its tables.
fn hurried(connection: &mut Connection, sql: &str) -> Result<(), Fault> {
    let set = |seconds: &str| format!("SET SESSION lock_wait_timeout = {seconds}");
    connection.statement(STATEMENT_TIMEOUT, &set(&SWAP_WAIT_SECONDS.to_string()))?;
    let outcome = connection.statement(STATEMENT_TIMEOUT, sql);
    let reset = connection.statement(STATEMENT_TIMEOUT, &set(&LOCK_WAIT_SECONDS.to_string()));
    // What went wrong first says more.
    outcome.and(reset).map(drop)
}

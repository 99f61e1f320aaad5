//! A dry run of a definition: the first rows that it would write, and what a backfill would delete.
//! Nothing is written to the store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onelog::{KeyRange, Offset, Position, Row as LogRow, Snapshot};
use serde::Serialize;
use serde_json::{Value, json};

use crate::deletions::{CountError, Counting, RowsThere};
use crate::error::SinkError;
use crate::handle::Found;
use crate::open::plan_of;
use crate::progress::Place;
use crate::runner::log_id;
use crate::sinks::{Inner, Sinks};
use onelog_mapping::{EXISTING, KeyForm, MappingRules, RowForm, Source};
use onelog_mapping::{MappingPlan, Plan, Row, RowFault, show_key};
use onelog_record::JsonText;
use onelog_store::{Kinds, SinkDefinition, StoreError, VerifyError};

/// The most rows of one mapping that are shown.
pub const DRY_RUN_ROWS_MAX: usize = 100;
/// The most rows of a store's table that are counted.
pub const DRY_RUN_STORE_ROWS_MAX: u64 = 1_000_000;
/// So much of what a backfill would drop beside rows is named.
pub const DRY_RUN_LOST_MAX: usize = 20;
/// The name of a definition without one.
const NO_NAME: &str = "try";
/// How many records of a table are looked at, at most.
const LOOKED_AT_MAX: u64 = 10_000;
/// For how long records are looked at: programs may take their time with each.
pub const DRY_RUN_TIME_MAX: Duration = Duration::from_secs(15);

/// What a definition would write.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DryRun {
    /// The log's state was read here.
    pub position: Position,
    /// One entry per mapping.
    pub mappings: Vec<DryRunMapping>,
}

/// What one mapping would write.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DryRunMapping {
    /// The table of the log.
    pub table: String,
    /// The table of the store.
    pub into: String,
    /// How many records were looked at.
    pub looked_at: u64,
    /// How many of them make no row: `where` or `transform` leave them out.
    pub left_out: u64,
    /// Whether the time was over before there were as many rows as requested.
    pub ended_early: bool,
    /// What the table in the store has; `None` where the definition does not say where the store is.
    pub store: Option<DryRunStore>,
    pub rows: Vec<DryRunRow>,
    /// The first records that do not fit.
    pub refused: Vec<DryRunRefused>,
}

/// The rows that are in the store, and what a backfill would do to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DryRunStore {
    pub rows: u64,
    /// How many of them a backfill would delete, because the log does not have them.
    pub deletes: u64,
    /// How many it would change, of a table that was there before the sink.
    pub changes: u64,
    /// Whether those are so many that the sink would stop until that is allowed.
    pub is_too_much: bool,
    /// What the sink would say where it stopped, then or because it cannot take the table as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// What users have added to the table (columns, indexes, triggers) and a backfill would drop with
    /// it; not more than [`DRY_RUN_LOST_MAX`] are named, and then how many more there are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
    /// Whether all rows were counted; not more than [`DRY_RUN_STORE_ROWS_MAX`] are.
    pub counted_all: bool,
    /// Why they could not be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DryRunRow {
    /// The key in the store.
    pub key: Value,
    /// The record that wrote it.
    pub version: Offset,
    /// The cells by column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<JsonText>,
    /// The document, where the store keeps one whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<JsonText>,
}

/// What users have added to a table and a backfill drops with it, as [`DryRunStore`] has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The table of the store.
    pub into: String,
    pub lost: Vec<String>,
}

/// A record that does not fit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DryRunRefused {
    /// The key in the log.
    pub key: Value,
    pub version: Offset,
    /// Why it does not fit.
    pub what: String,
}

impl Sinks {
    /// Shows the first rows that a definition would write, and how many rows of the store a backfill
    /// would delete. Nothing is written to the store.
    pub fn dry_run(&self, definition: &SinkDefinition, rows: usize) -> Result<DryRun, SinkError> {
        self.dry_run_with(definition, rows, true)
    }

    fn dry_run_with(
        &self,
        definition: &SinkDefinition,
        rows: usize,
        looks_into_the_store: bool,
    ) -> Result<DryRun, SinkError> {
        let node = &self.inner.node;
        let plan = plan_of(node, definition)?;
        let rules = definition.target.kind().rules();
        let snapshot = node.snapshot();
        let rows = rows.clamp(1, DRY_RUN_ROWS_MAX);
        let mut mappings = Vec::with_capacity(plan.mappings.len());
        let known = self.inner.find(&definition.name).ok();
        let former = known
            .as_ref()
            .map_or_else(Vec::new, |known| known.former_of(definition));
        let counting = Counting {
            node,
            definition,
            former: &former,
            snapshot: &snapshot,
            rows_max: DRY_RUN_STORE_ROWS_MAX,
            stop: &self.inner.stopping,
        };
        let other_log = match looks_into_the_store {
            true => self.is_of_other_log(definition),
            false => None,
        };
        let begun = Instant::now();
        let is_over = || begun.elapsed() >= DRY_RUN_TIME_MAX;
        for (number, mapping) in plan.mappings.iter().enumerate() {
            let looking = Looking {
                snapshot: &snapshot,
                rows,
                stop: &self.inner.stopping,
                is_over: &is_over,
            };
            let mut found = looking.run_mapping(rules, mapping)?;
            if looks_into_the_store {
                let mut store = look(&counting, &plan, number, known.as_ref());
                store.stop = other_log.clone().or(store.stop);
                found.store = Some(store);
            }
            mappings.push(found);
        }
        Ok(DryRun {
            position: snapshot.position(),
            mappings,
        })
    }

    /// What is said where the store's sink of this name follows another log, which the definition may
    /// not take it from. That a store cannot be read is said where its rows are counted.
    fn is_of_other_log(&self, definition: &SinkDefinition) -> Option<String> {
        let ours = log_id(&self.inner.node);
        let name = Some(&definition.name).filter(|name| *name != NO_NAME)?;
        let found = definition.target.followed_log(name, &ours).ok()??;
        let is_refused = found != ours && definition.take_from_log.as_ref() != Some(&found);
        is_refused.then(|| StoreError::OtherLog { ours, found }.to_string())
    }

    /// [`Sinks::dry_run`] for a definition that may lack its name and its place.
    pub fn dry_run_json(&self, definition: &Value, rows: usize) -> Result<DryRun, SinkError> {
        let (completed, has_place) = completed(self.inner.kinds, definition);
        let definition = SinkDefinition::from_json(self.inner.kinds, &completed)?;
        self.dry_run_with(&definition, rows, has_place)
    }
}

impl Inner {
    /// What is lost by the backfill where a definition takes the place of `former`, as far as the store
    /// says it now.
    pub(crate) fn lost_by(
        &self,
        definition: &SinkDefinition,
        former: &SinkDefinition,
    ) -> Vec<Lost> {
        let target = &definition.target;
        let is_elsewhere = !matches!(self.place_of(definition), Place::Here(_));
        let Ok(plan) = plan_of(&self.node, definition) else {
            return Vec::new();
        };
        let before = plan_of(&self.node, former);
        let goes_on = before.is_ok_and(|before| before.fingerprint() == plan.fingerprint())
            && target.is_same_store(former.target.as_ref());
        if goes_on || (is_elsewhere && target.kind().is_on_one_machine()) {
            return Vec::new();
        }
        let lost = |number: usize| {
            let found = target.lost(&plan, number).inspect_err(|error| {
                tracing::debug!(sink = definition.name, %error, "what is lost is not known");
            });
            let lost = bounded(found.unwrap_or_default());
            let into = plan.mappings[number].into.clone();
            (!lost.is_empty()).then_some(Lost { into, lost })
        };
        (0..plan.mappings.len()).filter_map(lost).collect()
    }
}

/// Whether a mapping's table was there before the sink, as far as the log tells: the store itself is
/// asked when the sink takes it over.
fn is_foreign(known: Option<&Found>, definition: &SinkDefinition, number: usize) -> bool {
    let mapping = &definition.mappings[number];
    let rules = definition.target.kind().rules();
    let backfilled = known.filter(|known| {
        let before = &known.definition.target;
        known.progress.position().is_some() && before.is_same_store(definition.target.as_ref())
    });
    let mut before = backfilled
        .iter()
        .flat_map(|known| &known.definition.mappings);
    mapping.options.flag(EXISTING)
        && !before.any(|before| {
            before.options.flag(EXISTING) && rules.is_same_table(&before.into, &mapping.into)
        })
}

/// `known`: the sink that has the definition's name.
fn look(counting: &Counting<'_>, plan: &Plan, number: usize, known: Option<&Found>) -> DryRunStore {
    let definition = counting.definition;
    let name = &definition.name;
    let refusal = match definition.target.check_backfill(name, plan, number) {
        Ok(()) => None,
        // What has no name may be the sink that the table belongs to.
        Err(StoreError::NotOwner { owner: Some(_), .. }) if name == NO_NAME => None,
        Err(error @ (StoreError::SchemaMismatch { .. } | StoreError::NotOwner { .. })) => {
            let error = match known {
                Some(_) => error,
                None => error.of_new_definition(),
            };
            Some(error.to_string())
        }
        Err(error) => return not_counted(error.into()),
    };
    let is_foreign = is_foreign(known, definition, number);
    let rows = RowsThere::of(&definition.mappings[number], is_foreign);
    let found = counting.count(rows, number).and_then(|counted| {
        let lost = definition.target.lost(plan, number)?;
        Ok((counted, counting.refusal(rows, number, counted), lost))
    });
    let mut store = found.map_or_else(not_counted, |(counted, refusal, lost)| DryRunStore {
        lost: bounded(lost),
        rows: counted.rows,
        deletes: counted.missing,
        changes: counted.different,
        is_too_much: refusal.is_some(),
        stop: refusal.map(|fault| fault.to_string()),
        counted_all: !counted.is_cut,
        why: None,
    });
    if refusal.is_some() {
        store.stop = refusal;
    }
    store
}

fn bounded(mut lost: Vec<String>) -> Vec<String> {
    let more = lost.len().saturating_sub(DRY_RUN_LOST_MAX);
    if more > 0 {
        lost.truncate(DRY_RUN_LOST_MAX);
        lost.push(format!("{more} more"));
    }
    lost
}

fn not_counted(error: CountError) -> DryRunStore {
    DryRunStore {
        why: Some(error.to_string()),
        ..DryRunStore::default()
    }
}

/// Fills in the name and the place of a store, which do not matter for the rows. Answers whether the
/// place was there.
fn completed(kinds: Kinds, definition: &Value) -> (Value, bool) {
    let mut out = definition.clone();
    let mut has_place = true;
    let kind = definition.get("kind").and_then(Value::as_str);
    if let Some(object) = out.as_object_mut() {
        object.entry("name").or_insert_with(|| json!(NO_NAME));
        if let Some(kind) = kind.and_then(|kind| kinds.find(kind)) {
            let scheme = kind.schemes().first().copied().unwrap_or_default();
            for (field, place) in kind.fields_of(&format!("{scheme}://localhost")) {
                object.entry(field).or_insert_with(|| {
                    has_place = false;
                    place
                });
            }
        }
    }
    (out, has_place)
}

/// What records are looked at, and for how long.
struct Looking<'l> {
    snapshot: &'l Snapshot,
    rows: usize,
    stop: &'l AtomicBool,
    is_over: &'l dyn Fn() -> bool,
}

impl Looking<'_> {
    fn run_mapping(
        &self,
        rules: &MappingRules,
        mapping: &MappingPlan,
    ) -> Result<DryRunMapping, SinkError> {
        let mut out = DryRunMapping {
            table: mapping.table_name.clone(),
            into: mapping.into.clone(),
            looked_at: 0,
            left_out: 0,
            ended_early: false,
            store: None,
            rows: Vec::new(),
            refused: Vec::new(),
        };
        let range = KeyRange {
            table: mapping.table,
            from: Bytes::new(),
            to: None,
        };
        let failed = |cause| SinkError::Read { cause };
        for found in self.snapshot.scan(&range, false).map_err(failed)? {
            if out.rows.len() >= self.rows || out.looked_at >= LOOKED_AT_MAX {
                break;
            }
            if (self.is_over)() {
                out.ended_early = true;
                break;
            }
            if self.stop.load(Ordering::Acquire) {
                return Err(VerifyError::Stopped.into());
            }
            let found = found.map_err(failed)?;
            out.looked_at += 1;
            match run_row(rules, mapping, &found) {
                Ok(Some(row)) => out.rows.push(row),
                Ok(None) => out.left_out += 1,
                Err(fault) if out.refused.len() < self.rows => out.refused.push(DryRunRefused {
                    key: show_key(&found.key),
                    version: found.version,
                    what: fault.to_string(),
                }),
                Err(_) => {}
            }
        }
        Ok(out)
    }
}

fn run_row(
    rules: &MappingRules,
    mapping: &MappingPlan,
    found: &LogRow,
) -> Result<Option<DryRunRow>, RowFault> {
    let (key, version) = (&found.key, found.version);
    let Some(value) = mapping.transform(key, version, &found.value)? else {
        return Ok(None);
    };
    let mut row = Row::default();
    mapping.project(key, version, &value, &mut row)?;
    let shown_key = match rules.keys {
        KeyForm::Name => {
            let mut rendered = Vec::new();
            mapping.key_template.render(key, &mut rendered);
            show_key(&rendered)
        }
        KeyForm::Column => row.cells[mapping.key].show_key(),
    };
    let whole = mapping.columns.iter().position(|c| c.from == Source::Value);
    let is_document = mapping.is_document && rules.rows == RowForm::Document;
    let (columns, document) = match whole.filter(|_| is_document) {
        Some(whole) => (None, Some(row.cells[whole].show())),
        None => {
            let cells = mapping.columns.iter().zip(&row.cells);
            let cells = cells.map(|(column, cell)| (&*column.name, cell.show()));
            (Some(JsonText::object(cells)), None)
        }
    };
    Ok(Some(DryRunRow {
        key: shown_key,
        version,
        columns,
        document,
    }))
}

//! What a backfill or a repair would delete in its store, counted before anything is changed there:
//! the guard against emptying a store by accident. Every kind of store and every reason comes
//! through here.
//!
//! A row is deleted where the log has no record of its key, or the mapping leaves that record out.
//! Rows that are written over are not counted: the log has them.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use onelog::{Node, Position, ReadError, Snapshot};
use onelog_mapping::{
    ADOPT, Column, ColumnType, Columns, DefinitionError, EXISTING, KEY_COLUMN, Mapping,
    MappingPlan, REPLACE, Row, Source,
};
use onelog_store::{Change, EachRow, Guard, Leftover, SinkDefinition, StoreError, StoreReader};

use crate::error::{SinkError, SinkFault};
use crate::feed::Feed;
use crate::open::{plan_of, plan_of_any_table};
use crate::session_end::SessionEnd;

/// So many rows of a table a backfill or a repair deletes without being asked to …
pub const DELETES_MAX: u64 = 100;
/// … and above that, so much of it, in percent.
pub const DELETES_PERCENT_MAX: u64 = 20;

/// How many of a table's rows are deleted without being asked for; `max` is the definition's own
/// bound.
fn deletes_allowed(rows: u64, max: Option<u64>) -> u64 {
    let part = u128::from(rows) * u128::from(DELETES_PERCENT_MAX) / 100;
    max.unwrap_or_else(|| DELETES_MAX.max(u64::try_from(part).unwrap_or(u64::MAX)))
}

/// Whether `deletes` of a table's rows must be asked for.
pub(crate) fn is_too_much(deletes: u64, rows: u64, max: Option<u64>) -> bool {
    deletes > deletes_allowed(rows, max)
}

impl Feed {
    fn counting<'c>(&'c self, snapshot: &'c Snapshot) -> Counting<'c> {
        Counting {
            node: &self.node,
            definition: &self.definition,
            former: &self.former,
            snapshot,
            rows_max: u64::MAX,
            stop: &self.leaving,
        }
    }

    /// Fails where a backfill from `snapshot` would delete or change more rows than the definition
    /// allows, and answers what it may do to those that come meanwhile. `foreign`: the mappings whose
    /// tables were there before this sink, with rows of others.
    pub(crate) fn check_rows(
        &self,
        foreign: &[usize],
        may_delete: bool,
        snapshot: &Snapshot,
    ) -> Result<Vec<Guard>, SessionEnd> {
        let counting = self.counting(snapshot);
        let mut guards = Vec::with_capacity(self.definition.mappings.len());
        for (number, mapping) in self.definition.mappings.iter().enumerate() {
            let rows = RowsThere::of(mapping, foreign.contains(&number));
            // It is empty, else the store has refused it.
            if rows == RowsThere::None {
                guards.push(Guard::Untouched);
                continue;
            }
            let counted = counting.count(rows, number)?;
            let may_delete = may_delete && rows != RowsThere::Foreign;
            let refusal = counting.refusal(rows, number, counted);
            if let Some(fault) = refusal.filter(|_| !may_delete) {
                return Err(SessionEnd::Stop(fault));
            }
            if counted.missing > 0 || counted.different > 0 {
                let (rows, deletes, changes) = (counted.rows, counted.missing, counted.different);
                tracing::warn!(
                    sink = self.definition.name,
                    into = mapping.into,
                    rows,
                    deletes,
                    changes,
                    "a backfill deletes or changes rows of a table"
                );
            }
            guards.push(match counting.deletes_allowed(rows, counted) {
                _ if rows == RowsThere::Foreign => Guard::Untouched,
                Some(most) if !may_delete => Guard::Deletes(most),
                _ => Guard::Anything,
            });
        }
        Ok(guards)
    }

    /// The same of what was written while the new rows were loaded: new tables take the place of the old
    /// ones with all that these have.
    pub(crate) fn check_deletes_again(
        &self,
        guards: &[Guard],
        snapshot: &Snapshot,
    ) -> Result<(), SessionEnd> {
        let counting = self.counting(snapshot);
        for (number, guard) in guards.iter().enumerate() {
            let Guard::Deletes(most) = *guard else {
                continue;
            };
            let counted = counting.count(RowsThere::Written, number)?;
            if counted.missing > most {
                let mapping = &self.definition.mappings[number];
                let at = snapshot.position();
                let fault = too_many(&self.definition.name, mapping, counted, at);
                return Err(SessionEnd::Stop(fault));
            }
        }
        Ok(())
    }

    /// What the store itself counted at the end of a backfill and did not do, as
    /// [`Feed::check_rows`] says it.
    pub(crate) fn guarded(
        &self,
        error: &StoreError,
        guards: &[Guard],
        at: Position,
    ) -> Option<SessionEnd> {
        let StoreError::Guarded {
            into,
            rows,
            deletes,
            changes,
        } = error
        else {
            return None;
        };
        let mut mappings = self.definition.mappings.iter().zip(guards);
        let (mapping, guard) = mappings.find(|(mapping, _)| mapping.into == *into)?;
        let counted = Counted {
            rows: *rows,
            missing: *deletes,
            different: *changes,
            is_cut: false,
        };
        Some(SessionEnd::Stop(match guard {
            Guard::Untouched => foreign_rows(mapping, counted),
            Guard::Anything | Guard::Deletes(_) => {
                too_many(&self.definition.name, mapping, counted, at)
            }
        }))
    }

    /// Fails where new tables without the rows of `refused` keys would lack more than `most` of the rows
    /// that are there.
    pub(crate) fn check_refused(
        &self,
        number: usize,
        refused: &HashSet<&[u8]>,
        most: u64,
        snapshot: &Snapshot,
    ) -> Result<(), SessionEnd> {
        let counted = self
            .counting(snapshot)
            .missing_or_refused(number, refused)?;
        if counted.missing <= most {
            return Ok(());
        }
        Err(SessionEnd::Stop(SinkFault::new(format!(
            "a backfill would delete {} of the {} rows of '{}': new tables take the place of the old ones, and the log has none of these rows at position {}, or the store refuses what the log has of them (onelog sinks parked {name} lists those); nothing was changed. If that is right, let it: onelog sinks rebuild {name} --delete-rows (or \"max_deletes\" in the definition)",
            counted.missing,
            counted.rows,
            self.definition.mappings[number].into,
            snapshot.position(),
            name = self.definition.name,
        ))))
    }

    /// Fails where a backfill would delete more than the definition allows of what no mapping names
    /// any more.
    pub(crate) fn check_leftovers(&self, leftovers: &[Leftover]) -> Result<(), SessionEnd> {
        for Leftover { name, rows } in leftovers {
            if is_too_much(*rows, *rows, self.definition.max_deletes) {
                return Err(SessionEnd::Stop(SinkFault::new(format!(
                    "a backfill would delete the {rows} rows of '{name}', which this sink has written and no mapping of its definition names any more; nothing was changed. If that is right, let it: onelog sinks rebuild {} --delete-rows (or \"max_deletes\" in the definition); if not, put the mapping back as it was",
                    self.definition.name,
                ))));
            }
        }
        Ok(())
    }
}

/// What the rows are that a mapping's table has before a backfill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowsThere {
    /// They were there before this sink, and the log must have them as they are.
    Foreign,
    /// They were, and the definition says that they are replaced; `max_deletes` bounds that, where it
    /// is given.
    Replaced,
    /// The table is made by this sink.
    None,
    /// This sink wrote them.
    Written,
}

impl RowsThere {
    /// `is_foreign`: the table was there before this sink.
    pub(crate) fn of(mapping: &Mapping, is_foreign: bool) -> Self {
        let replaces = mapping.options.choice(ADOPT) == Some(REPLACE);
        match is_foreign {
            true if replaces => Self::Replaced,
            true if !mapping.options.flag(EXISTING) => Self::None,
            true => Self::Foreign,
            false => Self::Written,
        }
    }
}

fn foreign_rows(mapping: &Mapping, counted: Counted) -> SinkFault {
    SinkFault::new(format!(
        "the table '{}' was there before this sink, and of its {} rows {} are not in the log's table '{}' and {} are there with other values; nothing was changed. Write these rows to the log first (onelog import --from-store does), then resume the sink; or, if they are to be deleted and written over, say \"adopt\": \"replace\" in the mapping",
        mapping.into, counted.rows, counted.missing, mapping.table, counted.different
    ))
}

fn too_many(sink: &str, mapping: &Mapping, counted: Counted, at: Position) -> SinkFault {
    SinkFault::new(format!(
        "a backfill would delete {} of the {} rows of '{}', because the log has none of them at position {at}; nothing was changed. If that is right, let it: onelog sinks rebuild {sink} --delete-rows (or \"max_deletes\" in the definition); if not, see which table of the log the sink follows, and what its 'where' leaves out",
        counted.missing, counted.rows, mapping.into,
    ))
}

/// Compares the rows of a store's tables with the log's state.
pub(crate) struct Counting<'c> {
    pub(crate) node: &'c Node,
    pub(crate) definition: &'c SinkDefinition,
    /// Mappings by which the store may have been backfilled, with other keys than the definition's.
    pub(crate) former: &'c [Mapping],
    pub(crate) snapshot: &'c Snapshot,
    /// Not more rows of a table are read.
    pub(crate) rows_max: u64,
    /// Gives the count up.
    pub(crate) stop: &'c AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) rows: u64,
    /// The log does not have them.
    pub(crate) missing: u64,
    /// The log has other values.
    pub(crate) different: u64,
    /// Whether there are more rows, which were not read.
    pub(crate) is_cut: bool,
}

/// How the rows of a table are read.
type Way = fn(&mut (dyn StoreReader + 'static), usize, EachRow<'_>) -> Result<(), StoreError>;

enum Compared {
    Equal,
    Different,
    Missing,
}

impl Counting<'_> {
    /// What a backfill would do to the rows that a mapping's table has.
    pub(crate) fn count(&self, rows: RowsThere, number: usize) -> Result<Counted, CountError> {
        if matches!(rows, RowsThere::Foreign | RowsThere::Replaced)
            && let Some(counted) = self.compared(number)?
        {
            return Ok(counted);
        }
        self.missing(number)
    }

    /// Why the sink stops before a backfill that would do that.
    pub(crate) fn refusal(
        &self,
        rows: RowsThere,
        number: usize,
        counted: Counted,
    ) -> Option<SinkFault> {
        let definition = self.definition;
        let mapping = &definition.mappings[number];
        let at = self.snapshot.position();
        match rows {
            RowsThere::Foreign => (counted.missing > 0 || counted.different > 0)
                .then(|| foreign_rows(mapping, counted)),
            RowsThere::Replaced | RowsThere::None | RowsThere::Written => self
                .deletes_allowed(rows, counted)
                .filter(|most| counted.missing > *most)
                .map(|_| too_many(&definition.name, mapping, counted, at)),
        }
    }

    /// How many of these rows a backfill may delete unasked. `None`: any number.
    fn deletes_allowed(&self, rows: RowsThere, counted: Counted) -> Option<u64> {
        let most = self.definition.max_deletes;
        match rows {
            RowsThere::Replaced | RowsThere::None => most,
            RowsThere::Foreign => Some(0),
            RowsThere::Written => Some(deletes_allowed(counted.rows, most)),
        }
    }

    /// How many rows of a mapping's table a backfill would delete.
    fn missing(&self, number: usize) -> Result<Counted, CountError> {
        self.missing_or_refused(number, &HashSet::new())
    }

    /// The same where rows of `refused` keys are deleted as well.
    fn missing_or_refused(
        &self,
        number: usize,
        refused: &HashSet<&[u8]>,
    ) -> Result<Counted, CountError> {
        let mapping = &self.definition.mappings[number];
        let rules = self.definition.target.kind().rules();
        let of_table = |former: &&Mapping| rules.is_same_table(&former.into, &mapping.into);
        let plan = plan_of(self.node, self.definition)?;
        let now = &plan.mappings[number];
        let mut shapes = vec![keys_of(mapping)];
        shapes.extend(self.former.iter().filter(of_table).map(keys_of));
        // A key that is not of the column's type is read as the text that it is.
        shapes.push(with_text_key(&shapes[0]));
        for shape in shapes {
            let mut compare = |reading: &MappingPlan, row: &Row| {
                Ok(match reading.key_of_row(row) {
                    Some(key) if refused.contains(&key[..]) => Compared::Missing,
                    Some(key) if find(self.snapshot, now, &key)?.is_some() => Compared::Equal,
                    _ => Compared::Missing,
                })
            };
            let counted = self.scan(&shape, StoreReader::scan_keys, &mut compare)?;
            if let Some(counted) = counted {
                return Ok(counted);
            }
        }
        // A table of other keys is made anew, without any of its rows.
        let rows = self.definition.target.count_rows(&mapping.into)?;
        let rows = rows.unwrap_or_default();
        Ok(Counted {
            rows,
            missing: rows,
            ..Counted::default()
        })
    }

    /// The same, and how many rows have other values. `None`: there is no table of the mapping's shape.
    fn compared(&self, number: usize) -> Result<Option<Counted>, CountError> {
        let mapping = &self.definition.mappings[number];
        self.scan(mapping, StoreReader::scan, &mut |mapping, row| {
            compare(self.snapshot, mapping, row)
        })
    }

    /// Compares every row of a mapping's table, as `way` reads it. `None`: there is none of that shape.
    fn scan(
        &self,
        mapping: &Mapping,
        way: Way,
        compare: &mut dyn FnMut(&MappingPlan, &Row) -> Result<Compared, ReadError>,
    ) -> Result<Option<Counted>, CountError> {
        let alone = SinkDefinition {
            mappings: vec![mapping.clone()],
            ..self.definition.clone()
        };
        let plan = Arc::new(plan_of_any_table(self.node, &alone)?);
        let mut out = Counted::default();
        let (mut failed, mut is_given_up) = (None, false);
        let reader = alone.target.open_reader_where_written(&plan);
        let scanned = reader.and_then(|mut reader| {
            way(reader.as_mut(), 0, &mut |row| {
                if self.stop.load(Ordering::Acquire) {
                    is_given_up = true;
                    return ControlFlow::Break(());
                }
                if out.rows >= self.rows_max {
                    out.is_cut = true;
                    return ControlFlow::Break(());
                }
                out.rows += 1;
                match compare(&plan.mappings[0], row) {
                    Ok(Compared::Equal) => {}
                    Ok(Compared::Different) => out.different += 1,
                    Ok(Compared::Missing) => out.missing += 1,
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })
        });
        if is_given_up {
            return Err(CountError::Stopped);
        }
        if let Some(error) = failed {
            return Err(CountError::Read(error));
        }
        match scanned {
            Ok(()) => Ok(Some(out)),
            // There is no such table, or not with that key, or keys that are not of its type.
            Err(StoreError::SchemaMismatch { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Rows could not be counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CountError {
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("reading the log's state: {0}")]
    Read(ReadError),
    #[error("it was given up because the sinks are stopping")]
    Stopped,
}

impl From<CountError> for SessionEnd {
    fn from(error: CountError) -> Self {
        match error {
            CountError::Definition(error) => Self::Stop(SinkFault::new(error)),
            CountError::Store(error) => error.into(),
            CountError::Read(_) | CountError::Stopped => Self::Retry(SinkFault::new(error)),
        }
    }
}

/// How many of these keys of each mapping a repair would delete.
pub(crate) fn deletions_among(
    node: &Node,
    definition: &SinkDefinition,
    keys: &[(usize, Bytes)],
) -> Result<Vec<u64>, SinkError> {
    let plan = plan_of(node, definition)?;
    let snapshot = node.snapshot();
    let mut out = vec![0; plan.mappings.len()];
    for (number, key) in keys {
        let found = find(&snapshot, &plan.mappings[*number], key);
        let found = found.map_err(|cause| SinkError::Read { cause })?;
        out[*number] += u64::from(found.is_none());
    }
    Ok(out)
}

/// What the log has of a key, transformed; `None` where a backfill makes no row of it.
fn find(
    snapshot: &Snapshot,
    mapping: &MappingPlan,
    key: &[u8],
) -> Result<Option<Change>, ReadError> {
    let Some(found) = snapshot.get(mapping.table, key)? else {
        return Ok(None);
    };
    let mut change = Change {
        key: Bytes::copy_from_slice(key),
        offset: found.version,
        value: Some(found.value),
    };
    // What the mapping cannot transform is refused or parked, which is another matter.
    let left_out = change.try_transform(mapping).is_ok() && change.value.is_none();
    Ok((!left_out).then_some(change))
}

fn compare(snapshot: &Snapshot, mapping: &MappingPlan, row: &Row) -> Result<Compared, ReadError> {
    let Some(key) = mapping.key_of_row(row) else {
        return Ok(Compared::Missing);
    };
    let Some(change) = find(snapshot, mapping, &key)? else {
        return Ok(Compared::Missing);
    };
    let value = change.value.unwrap_or_default();
    let mut ours = Row::default();
    let projected = mapping.project(&change.key, change.offset, &value, &mut ours);
    let mut cells = ours.cells.iter().zip(&row.cells);
    // Documents that are written differently are the same, as for a verification.
    Ok(
        match projected.is_ok() && cells.all(|(ours, theirs)| ours.is_same(theirs)) {
            true => Compared::Equal,
            false => Compared::Different,
        },
    )
}

/// The same column of the key, whatever type it has there.
fn with_text_key(keys: &Mapping) -> Mapping {
    let mut keys = keys.clone();
    for (_, column) in &mut keys.columns.0 {
        column.kind = ColumnType::Text;
    }
    keys
}

/// A mapping with the column of the key alone.
pub(crate) fn keys_of(mapping: &Mapping) -> Mapping {
    let mut mapping = mapping.clone();
    mapping.full_text.clear();
    if !mapping.columns.0.is_empty() {
        let columns = std::mem::take(&mut mapping.columns.0);
        let key = columns
            .into_iter()
            .find(|(_, column)| column.from == Source::Key);
        let implied = || {
            let column = Column {
                from: Source::Key,
                kind: ColumnType::Text,
            };
            (KEY_COLUMN.to_owned(), column)
        };
        mapping.columns = Columns(vec![key.unwrap_or_else(implied)]);
    }
    mapping
}

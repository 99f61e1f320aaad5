//! The state against the log.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use onelog_command::CommandError;
use onelog_log::{CheckReport, Disk};
use onelog_record::{Offset, TABLE_TABLES, TABLE_UNIQUE, TableDefinition, TableId};
use onelog_state::{Opened, ReadError, RememberedId, STATE_FILE, State};

use super::entries;
use super::expected::{Expected, Part, failed, key_hash, owner, records, transactions, value_hash};
use super::report::{Fault, Place, Report};

/// The part of a fingerprint that is kept in memory and on disk alike.
const FINGERPRINT_MASK: u64 = (1 << 48) - 1;
/// How many missing rows are named.
const MISSING_NAMED_MAX: usize = 100;

/// Compares rows, remembered ids and the state's place in the log.
pub fn compare(
    log: &dyn Disk,
    found: &CheckReport,
    state: &State,
    opened: &Opened,
    report: &mut Report,
) -> Result<(), CommandError> {
    if !fits(log, found, opened, report)? {
        return Ok(());
    }
    let Some(names) = table_names(state, report) else {
        return Ok(());
    };
    let mut compared = Comparison {
        names,
        start: found.start.get(),
        report,
    };
    for part in Part::all(found.checked.records) {
        let expected = Expected::read(log, opened.applied.index, part)?;
        let Some(missing) = compared.rows(state, expected, part) else {
            return Ok(());
        };
        compared.name_missing(log, opened, &missing)?;
    }
    compared.ids(log, opened)
}

/// Whether the state is at an entry that the log has, or right before its first one.
fn fits(
    log: &dyn Disk,
    found: &CheckReport,
    opened: &Opened,
    report: &mut Report,
) -> Result<bool, CommandError> {
    let applied = &opened.applied;
    let place = || Place::File(format!("state/{STATE_FILE}"));
    if applied.index > found.last_index || applied.index.next() < found.first_index {
        report.fault(Fault {
            place: place(),
            what: format!(
                "the state covers the log up to entry {}, but the log holds entries {} to {}",
                applied.index, found.first_index, found.last_index
            ),
        });
        return Ok(false);
    }
    let mut at = None;
    entries(log, |entry| {
        if entry.index == applied.index {
            at = Some((entry.header.end(), entry.term));
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match at {
        Some(there) if there != (applied.position, applied.term) => {
            report.fault(Fault {
                place: place(),
                what: format!(
                    "the state is at entry {}, position {}, term {}; in the log that entry ends at position {} and has term {}",
                    applied.index, applied.position, applied.term, there.0, there.1
                ),
            });
            Ok(false)
        }
        _ => Ok(true),
    }
}

/// The names of tables, for people. Rows that cannot be read as definitions name nothing.
fn table_names(state: &State, report: &mut Report) -> Option<HashMap<TableId, String>> {
    let mut names = HashMap::new();
    let scanned = state.scan_base(&mut |table, _, _, value| {
        if table > TABLE_TABLES {
            return ControlFlow::Break(());
        }
        if table == TABLE_TABLES
            && let Ok(definition) = serde_json::from_slice::<TableDefinition>(value)
        {
            names.insert(definition.id, definition.name);
        }
        ControlFlow::Continue(())
    });
    read(scanned, report)?;
    for (id, name) in onelog_record::SYSTEM_TABLES {
        names.insert(id, name.to_owned());
    }
    Some(names)
}

/// A row that cannot be read is a fault of the state, not of the check; what is behind it cannot be
/// compared.
fn read<T>(result: Result<T, ReadError>, report: &mut Report) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            report.fault(Fault {
                place: Place::File(format!("state/{STATE_FILE}")),
                what: error.to_string(),
            });
            None
        }
    }
}

struct Comparison<'r> {
    names: HashMap<TableId, String>,
    start: u64,
    report: &'r mut Report,
}

impl Comparison<'_> {
    fn table(&self, table: TableId) -> String {
        match self.names.get(&table) {
            Some(name) => name.clone(),
            None => format!("number {table}"),
        }
    }

    fn wrong_row(&mut self, table: TableId, key: &[u8], offset: u64, what: String) {
        self.report.fault(Fault {
            place: Place::Row {
                table: self.table(table),
                key: key.to_vec(),
                offset,
            },
            what,
        });
    }

    /// Compares each row of one part; answers the offsets of rows that are missing.
    fn rows(&mut self, state: &State, mut expected: Expected, part: Part) -> Option<HashSet<u64>> {
        let scanned = state.scan_base(&mut |table, key, version, value| {
            let hash = key_hash(table, key);
            if !part.has(&hash) {
                return ControlFlow::Continue(());
            }
            self.report.rows += 1;
            let offset = version.get();
            let wrong = match expected.last.remove(&hash) {
                // Versions before this one left unique values behind.
                _ if table == TABLE_UNIQUE && expected.is_gone(owner(table, key), offset) => None,
                _ if expected.is_gone(table, offset) => {
                    Some("the row belongs to a table that was deleted".to_owned())
                }
                None if offset < self.start => {
                    self.report.rows_older += 1;
                    None
                }
                None => Some("the log never wrote this row".to_owned()),
                Some(last) => match last.value {
                    None => Some(format!(
                        "the log deleted this row at offset {}",
                        last.offset
                    )),
                    Some(_) if last.offset != offset => Some(format!(
                        "the log last wrote this row at offset {}",
                        last.offset
                    )),
                    Some(expected) if expected != value_hash(value) => {
                        Some("the row holds another value than the log".to_owned())
                    }
                    Some(_) => None,
                },
            };
            if let Some(what) = wrong {
                self.wrong_row(table, key, offset, what);
            }
            ControlFlow::Continue(())
        });
        read(scanned, self.report)?;
        let missing = expected.last.values().filter(|last| last.value.is_some());
        let missing = missing.filter(|last| !expected.is_gone(last.table, last.offset));
        Some(missing.map(|last| last.offset).collect())
    }

    /// Missing rows are known by their offset alone; the log knows the rest.
    fn name_missing(
        &mut self,
        log: &dyn Disk,
        opened: &Opened,
        missing: &HashSet<u64>,
    ) -> Result<(), CommandError> {
        if missing.is_empty() {
            return Ok(());
        }
        let mut named = 0;
        records(log, opened.applied.index, |record| {
            let offset = record.offset.get();
            if missing.contains(&offset) {
                named += 1;
                let key = match named <= MISSING_NAMED_MAX {
                    true => &record.key[..],
                    false => &[],
                };
                let what = "the log wrote this row, the state does not have it".to_owned();
                self.wrong_row(record.table, key, offset, what);
            }
        })
    }

    /// The remembered ids must be the newest transactions of the log, each as it is there.
    fn ids(&mut self, log: &dyn Disk, opened: &Opened) -> Result<(), CommandError> {
        self.report.ids = opened.ids.len() as u64;
        let Some(oldest) = opened.ids.iter().map(|id| id.first_offset).min() else {
            return Ok(());
        };
        let mut remembered: HashMap<u128, &RememberedId> =
            opened.ids.iter().map(|id| (id.id.0, id)).collect();
        let mut wrong = Vec::new();
        let last = opened.applied.index;
        entries(log, |entry| {
            if entry.index > last {
                return Ok(ControlFlow::Break(()));
            }
            if entry.header.end().next_offset() <= oldest {
                return Ok(ControlFlow::Continue(()));
            }
            for transaction in transactions(entry)? {
                let transaction = transaction.map_err(failed)?;
                if transaction.first_offset < oldest {
                    continue;
                }
                let position = transaction.first_offset.get() + u64::from(transaction.record_count);
                let same = remembered.remove(&transaction.id.0).map(|known| {
                    let print = (known.fingerprint ^ transaction.fingerprint) & FINGERPRINT_MASK;
                    print == 0
                        && known.position.get() == position
                        && known.records == transaction.record_count
                        && known.first_offset == transaction.first_offset
                });
                match same {
                    Some(true) => {}
                    Some(false) => wrong.push((position, "the state remembers it differently")),
                    None => wrong.push((position, "the state has forgotten its id")),
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let start = Offset(self.start);
        let invented = remembered
            .values()
            .filter(|known| known.first_offset >= start);
        let invented = invented.map(|known| {
            (
                known.position.get(),
                "the state remembers it, the log does not have it",
            )
        });
        for (position, what) in wrong.into_iter().chain(invented) {
            self.report.fault(Fault {
                place: Place::Transaction { position },
                what: what.to_owned(),
            });
        }
        Ok(())
    }
}

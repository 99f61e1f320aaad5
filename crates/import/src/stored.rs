//! Rows of a store as records: the way into the log for a table that was there before onelog.
//!
//! A thread reads the table in one snapshot and hands the records over through a bounded queue.
//! Nothing of it can be gone on with: an import that was interrupted begins again, and writes the
//! same records under the same keys.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use onelog_command::{CommandError, DefinitionFile};
use onelog_mapping::{
    Document, EXISTING, Inverse, KeyForm, MappingPlan, Plan, Row, RowFault, RowForm, Tables,
    show_key,
};
use onelog_record::{TableDefinition, TableId, TableKind, ValueKind};
use onelog_store::{Kinds, SinkDefinition, StoreError, StoreReader, Target};

use crate::Args;
use crate::format::Piece;
use crate::keys::{self, FINGERPRINTS_MAX};

/// How many records wait between the reading thread and the batches.
const QUEUE_MAX: usize = 256;

/// The rows of a store's table.
pub struct StoredRows {
    /// Why no sink can fill the table that is read, where that is so.
    pub unfillable: Option<String>,
    queue: Option<Receiver<io::Result<Piece>>>,
    thread: Option<JoinHandle<()>>,
}

/// The table of the log: keyed, of JSON.
struct OneTable<'a>(&'a str);

impl Tables for OneTable<'_> {
    fn table(&self, name: &str) -> Option<TableDefinition> {
        (name == self.0).then(|| TableDefinition {
            id: TableId(u32::MAX),
            name: name.to_owned(),
            kind: TableKind::Keyed,
            value: ValueKind::Json,
            schema: None,
            unique: Vec::new(),
            dropped: false,
        })
    }

    fn names(&self) -> Vec<String> {
        vec![self.0.to_owned()]
    }
}

impl StoredRows {
    /// Opens the table that the definition fills from the table of the arguments.
    pub fn open(args: &Args, kinds: Kinds) -> Result<Self, CommandError> {
        let Table {
            target,
            plan,
            mut inverse,
        } = read(args, kinds)?;
        let mut reader = target
            .open_reader(&plan)
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        refuse_shared_keys(reader.as_mut(), &plan)?;
        let unfillable = unfillable(&*target, &plan.mappings[0]);
        let (sender, queue) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("import-store".to_owned())
            .spawn(move || {
                let mut rows = Rows {
                    sender: &sender,
                    number: 0,
                    at: 0,
                };
                let mapping = &plan.mappings[0];
                let scanned = reader.scan(0, &mut |row| {
                    let document = inverse
                        .document(mapping, row)
                        .and_then(|document| writable(&*target, mapping, row).map(|()| document));
                    rows.send(document.map_err(|fault| named(mapping, row, &fault)))
                });
                if let Err(error) = scanned {
                    // The other side may have stopped listening.
                    let _ = sender.send(Err(io::Error::other(error.to_string())));
                }
            })
            .map_err(|error| CommandError::Failed(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            unfillable,
            queue: Some(queue),
            thread: Some(thread),
        })
    }
}

/// A record has one row: of several with one key all but the last would be lost.
fn refuse_shared_keys(reader: &mut dyn StoreReader, plan: &Arc<Plan>) -> Result<(), CommandError> {
    let failed = |error: StoreError| CommandError::Failed(error.to_string());
    let Some(key) = keys::shared(reader, plan, FINGERPRINTS_MAX).map_err(failed)? else {
        return Ok(());
    };
    let mapping = &plan.mappings[0];
    let column = &mapping.columns[mapping.key].name;
    Err(CommandError::Failed(format!(
        "several rows of the table '{}' have the key {key} (column '{column}'): the log keeps one record of a key, and the other rows would be lost; nothing was imported. Give each row a key of its own in the store, best with a unique index, or take '$key' from another column",
        mapping.into
    )))
}

/// Whether a sink can write the row again.
fn writable(target: &dyn Target, mapping: &MappingPlan, row: &Row) -> Result<(), RowFault> {
    for (column, cell) in mapping.columns.iter().zip(&row.cells) {
        if let Some(why) = target.unwritable(cell) {
            return Err(RowFault {
                column: column.name.clone(),
                what: format!(
                    "it holds {}, which the sink does not write: {why}",
                    cell.show()
                ),
            });
        }
    }
    Ok(())
}

/// What no record makes, so that one finds it in the store.
fn named(mapping: &MappingPlan, row: &Row, fault: &RowFault) -> String {
    let key = match mapping.key_of_row(row) {
        Some(key) => show_key(&key),
        None => row.cells[mapping.key].show_key(),
    };
    format!(
        "the table '{}', key {key}, {fault}; change it in the store, or give the column another type or no place in the mapping",
        mapping.into
    )
}

fn unfillable(target: &dyn Target, mapping: &MappingPlan) -> Option<String> {
    let rules = target.kind().rules();
    let takes_existing = rules.options.iter().any(|option| option.name == EXISTING);
    (!takes_existing).then(|| {
        format!(
            "a sink of the kind {} makes a table of its own and fills no other: give its mapping another name for 'into' than '{}', which stays as it is",
            rules.kind, mapping.into
        )
    })
}

struct Rows<'s> {
    sender: &'s SyncSender<io::Result<Piece>>,
    number: u64,
    at: u64,
}

impl Rows<'_> {
    fn send(&mut self, document: Result<Document, String>) -> ControlFlow<()> {
        self.number += 1;
        let start = self.at;
        let (key, text) = match document {
            Ok((key, document)) => (Some(key), Ok(document.into_bytes())),
            Err(why) => (None, Err(why)),
        };
        self.at += text.as_ref().map_or(1, |text| text.len() as u64 + 1);
        let piece = Piece {
            number: self.number,
            start,
            end: self.at,
            key,
            text,
        };
        match self.sender.send(Ok(piece)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

impl Iterator for StoredRows {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.queue.as_ref()?.recv().ok()
    }
}

impl Drop for StoredRows {
    fn drop(&mut self) {
        // The thread ends at its next row.
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A table of a store, the plan of it and of its keys, and the way back.
struct Table {
    target: Arc<dyn Target>,
    plan: Arc<Plan>,
    inverse: Inverse,
}

fn read(args: &Args, kinds: Kinds) -> Result<Table, CommandError> {
    let mut sinks = DefinitionFile::read(&args.file)?.sinks();
    if let Some(name) = &args.name {
        sinks.retain(|sink| sink.value["name"].as_str() == Some(name));
    }
    let file = args.file.display();
    let [sink] = &sinks[..] else {
        return Err(CommandError::Usage(format!(
            "{file} has {} definitions of sinks{}: --name says which one is meant",
            sinks.len(),
            match &args.name {
                Some(name) => format!(" with the name '{name}'"),
                None => String::new(),
            }
        )));
    };
    let fault = |error: onelog_mapping::DefinitionError| sink.fault(&error.place, &error.what);
    let mut definition = SinkDefinition::from_json(kinds, &sink.value).map_err(fault)?;
    let rules = definition.target.kind().rules();
    if rules.rows != RowForm::Columns || rules.keys != KeyForm::Column {
        return Err(CommandError::Usage(format!(
            "{file}: a store of the kind {} has no tables with columns that could be read back; write its documents into a file, one JSON document per line, and import that",
            rules.kind
        )));
    }
    let wanted = |mapping: &onelog_mapping::Mapping| {
        mapping.table == args.table && args.into.as_ref().is_none_or(|into| *into == mapping.into)
    };
    let found: Vec<usize> = (0..definition.mappings.len())
        .filter(|number| wanted(&definition.mappings[*number]))
        .collect();
    let [number] = found[..] else {
        return Err(CommandError::Usage(format!(
            "{file}: {} mappings of the definition follow '{}'; {}",
            found.len(),
            args.table,
            match found.is_empty() {
                true => "the definition is the one of the sink that is to follow the table",
                false => "--into says which of their tables in the store is read",
            }
        )));
    };
    let mapping = definition.mappings.swap_remove(number);
    definition.mappings = vec![mapping];
    definition
        .target
        .check_place()
        .map_err(|what| CommandError::Usage(format!("{file}: {what}")))?;
    let in_place = |mut error: onelog_mapping::DefinitionError| {
        error.place = error
            .place
            .replacen("mappings[0]", &format!("mappings[{number}]"), 1);
        fault(error)
    };
    let plan = definition.plan(&OneTable(&args.table)).map_err(in_place)?;
    let inverse = Inverse::new("mappings[0]", &definition.mappings[0], &plan.mappings[0]);
    let inverse = inverse.map_err(in_place)?;
    Ok(Table {
        target: definition.target,
        plan: Arc::new(keys::with_keys(plan)),
        inverse,
    })
}

//! What a check found, for people and as JSON.

use std::fmt;
use std::path::{Path, PathBuf};

use onelog_command::units;
use onelog_log::CheckReport;
use onelog_state::Applied;
use onelog_terminal::{Out, counted, thousands};
use serde_json::{Value, json};

use crate::wire::{bytes_json, shown};

/// How many faults are listed; all are counted.
const FAULTS_MAX: usize = 100;

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A byte of a file of the log, and the entry there.
    Byte {
        file: String,
        byte: u64,
        entry: u64,
    },
    File(String),
    /// A row of the state.
    Row {
        table: String,
        key: Vec<u8>,
        offset: u64,
    },
    /// A transaction, by the position behind it.
    Transaction {
        position: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte { file, byte, entry } => write!(f, "{file}, byte {byte}, entry {entry}"),
            Self::File(file) => write!(f, "{file}"),
            Self::Row { table, key, offset } => {
                write!(
                    f,
                    "table {table}, key {}, offset {offset}",
                    shown(&bytes_json(key))
                )
            }
            Self::Transaction { position } => {
                write!(f, "the transaction before position {position}")
            }
        }
    }
}

impl Place {
    fn json(&self) -> Value {
        match self {
            Self::Byte { file, byte, entry } => json!({"file": file, "byte": byte, "index": entry}),
            Self::File(file) => json!({"file": file}),
            Self::Row { table, key, offset } => {
                json!({"table": table, "key": bytes_json(key), "offset": offset})
            }
            Self::Transaction { position } => json!({"position": position}),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    pub what: String,
}

#[derive(Clone, Debug)]
pub struct Report {
    folder: PathBuf,
    log: CheckReport,
    state: Option<Applied>,
    pub rows: u64,
    /// Rows that were written before the log begins: nothing can be compared.
    pub rows_older: u64,
    /// Remembered ids of transactions.
    pub ids: u64,
    /// What is wrong, the first `FAULTS_MAX`.
    pub faults: Vec<Fault>,
    pub faults_total: u64,
    notes: Vec<String>,
}

impl Report {
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            log: CheckReport::default(),
            state: None,
            rows: 0,
            rows_older: 0,
            ids: 0,
            faults: Vec::new(),
            faults_total: 0,
            notes: Vec::new(),
        }
    }

    /// Adds something that is wrong.
    pub fn fault(&mut self, fault: Fault) {
        self.faults_total += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    /// Adds something worth knowing that is no fault.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub fn add_log(&mut self, found: &CheckReport) {
        for fault in &found.faults {
            self.fault(Fault {
                place: Place::Byte {
                    file: format!("log/{}", fault.file),
                    byte: fault.at,
                    entry: fault.index.get(),
                },
                what: fault.what.clone(),
            });
        }
        if let Some(cut) = &found.tail {
            self.note(format!(
                "log/{}, byte {}: an unfinished end of {} bytes that was never acknowledged; the next start cuts it off",
                cut.file, cut.at, cut.lost_bytes
            ));
        }
        for index in &found.wrong_indexes {
            self.note(format!("an index is wrong and will be made again: {index}"));
        }
        self.log = found.clone();
    }

    pub const fn add_state(&mut self, applied: &Applied) {
        self.state = Some(*applied);
    }

    /// The position behind the last record.
    pub const fn end(&self) -> u64 {
        self.log.end.get()
    }

    pub fn print(&self, as_json: bool, out: &mut Out) -> std::io::Result<()> {
        if as_json {
            return out.json(&self.json());
        }
        let checked = &self.log.checked;
        out.line(&format!("{}", self.folder.display()))?;
        out.line(&format!(
            "  log    {}, {}, {}, {}, {}, positions {} to {}",
            counted(checked.segments, "segment"),
            match checked.entries {
                1 => "1 entry".to_owned(),
                entries => format!("{} entries", thousands(entries)),
            },
            counted(checked.transactions, "transaction"),
            counted(checked.records, "record"),
            units::size(checked.bytes),
            thousands(self.log.start.get()),
            thousands(self.log.end.get()),
        ))?;
        if let Some(applied) = &self.state {
            let older = match self.rows_older {
                0 => String::new(),
                rows => format!(" ({} older than the log, not compared)", thousands(rows)),
            };
            out.line(&format!(
                "  state  {}{older}, {}, at position {}",
                counted(self.rows, "row"),
                counted(self.ids, "remembered id"),
                thousands(applied.position.get()),
            ))?;
        }
        for note in &self.notes {
            out.line(&format!("  note   {note}"))?;
        }
        for fault in &self.faults {
            out.line(&format!("  WRONG  {}: {}", fault.place, fault.what))?;
        }
        let hidden = self.faults_total - self.faults.len() as u64;
        if hidden > 0 {
            out.line(&format!("  WRONG  {} more", thousands(hidden)))?;
        }
        match self.faults_total {
            0 => out.line("everything is as it was written"),
            1 => out.line("1 thing is wrong"),
            n => out.line(&format!("{} things are wrong", thousands(n))),
        }
    }

    pub fn json(&self) -> Value {
        let checked = &self.log.checked;
        let faults: Vec<Value> = self
            .faults
            .iter()
            .map(|fault| json!({"place": fault.place.json(), "what": fault.what}))
            .collect();
        json!({
            "folder": self.folder.to_string_lossy(),
            "ok": self.faults_total == 0,
            "log": {
                "segments": checked.segments,
                "entries": checked.entries,
                "transactions": checked.transactions,
                "records": checked.records,
                "bytes": checked.bytes,
                "start": self.log.start,
                "end": self.log.end,
            },
            "state": self.state.map(|applied| json!({
                "position": applied.position,
                "index": applied.index,
                "rows": self.rows,
                "rows_older_than_the_log": self.rows_older,
                "ids": self.ids,
            })),
            "notes": self.notes,
            "faults": faults,
            "faults_total": self.faults_total,
        })
    }
}

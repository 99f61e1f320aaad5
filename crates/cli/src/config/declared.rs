//! `[[tables]]` and `[[sinks]]` in the configuration: what a server makes at its start when it is
//! not there yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use onelog::NewTable;
use onelog_command::toml_json::{self, Fault};
use onelog_store::SinkDefinition;
use onelog_stores::KINDS;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::FileError;

/// The most entries of one section.
const ENTRIES_MAX: usize = 1024;

/// The sections that are lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Tables,
    Sinks,
}

/// Everything that a file declares.
#[derive(Clone, Debug, Default)]
pub struct Declarations {
    /// The tables in the file's order.
    pub tables: Vec<Declared<NewTable>>,
    /// The sinks in the file's order.
    pub sinks: Vec<Declared<SinkDefinition>>,
}

/// One entry, with its place.
#[derive(Clone, Debug)]
pub struct Declared<T> {
    pub what: T,
    /// Whether the entry says `paused`; otherwise a sink stays as it was left.
    pub says_paused: bool,
    entry: Entry,
}

/// The place of an entry.
#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    text: Arc<str>,
    section: Section,
    /// Its number in its section, from 0.
    number: usize,
    /// Its name, as far as it has one.
    name: Option<String>,
}

impl Section {
    /// The section of this name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Tables, Self::Sinks]
            .into_iter()
            .find(|section| section.name() == name)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Sinks => "sinks",
        }
    }
}

impl<T> Declared<T> {
    /// An error at this entry; `place` is a part of it, or nothing.
    pub fn fault(&self, place: &str, message: impl std::fmt::Display) -> FileError {
        self.entry.fault(place, message.to_string())
    }

    /// Where the entry begins.
    pub fn place(&self) -> String {
        format!(
            "{}, line {}",
            self.entry.path.display(),
            self.entry.line("")
        )
    }

    /// Which entry of which file, for a sentence.
    pub fn origin(&self) -> String {
        format!("{}: {}", self.place(), self.entry.title())
    }
}

impl Entry {
    fn title(&self) -> String {
        let section = self.section.name();
        match &self.name {
            Some(name) => format!("[[{section}]] '{name}'"),
            None => format!("[[{section}]] number {}", self.number + 1),
        }
    }

    fn fault(&self, place: &str, message: String) -> FileError {
        let title = self.title();
        FileError::Section {
            path: self.path.clone(),
            line: self.line(place),
            section: match place {
                "" => title,
                _ => format!("{title}, {place}"),
            },
            message,
        }
    }

    /// The line of a part of the entry. The text is read again: only errors need it.
    fn line(&self, place: &str) -> usize {
        let inside = || {
            let table = toml_json::parse(&self.text).ok()?;
            let list = list_of(table.get_ref(), self.section)?;
            let entry = list.get(self.number)?;
            Some(toml_json::line_of_place(&self.text, entry, place))
        };
        inside().unwrap_or(1)
    }
}

fn list_of<'d, 't>(table: &'d DeTable<'t>, section: Section) -> Option<&'d [Spanned<DeValue<'t>>]> {
    let mut fields = table.iter();
    let (_, value) = fields.find(|(name, _)| name.get_ref() == section.name())?;
    match value.get_ref() {
        DeValue::Array(items) => Some(items),
        _ => None,
    }
}

impl Declarations {
    /// The names, each with its place, for answers about what the next start makes again.
    pub fn names(&self) -> onelog_http::Declared {
        let tables = self.tables.iter();
        let sinks = self.sinks.iter();
        onelog_http::Declared {
            tables: tables
                .map(|table| (table.what.name.clone(), table.place()))
                .collect(),
            sinks: sinks
                .map(|sink| (sink.what.name.clone(), sink.place()))
                .collect(),
        }
    }

    /// Reads the two sections of a file.
    pub fn read(path: &Path, text: &str, table: &DeTable<'_>) -> Result<Self, FileError> {
        let text: Arc<str> = text.into();
        let mut out = Self::default();
        for (entry, value) in entries(path, &text, table, Section::Tables)? {
            let what = new_table(&value).map_err(|message| entry.fault("", message))?;
            out.tables.push(Declared {
                what,
                says_paused: false,
                entry,
            });
        }
        for (entry, value) in entries(path, &text, table, Section::Sinks)? {
            let what = SinkDefinition::from_json(KINDS, &value)
                .map_err(|error| entry.fault(&error.place, error.what))?;
            out.sinks.push(Declared {
                what,
                says_paused: value.get("paused").is_some(),
                entry,
            });
        }
        unique(&out.tables, |table| &table.name)?;
        unique(&out.sinks, |sink| &sink.name)?;
        Ok(out)
    }
}

fn entries(
    path: &Path,
    text: &Arc<str>,
    table: &DeTable<'_>,
    section: Section,
) -> Result<Vec<(Entry, Value)>, FileError> {
    let list = list_of(table, section).unwrap_or_default();
    let mut out = Vec::with_capacity(list.len());
    for (number, item) in list.iter().enumerate() {
        let mut entry = Entry {
            path: path.to_owned(),
            text: Arc::clone(text),
            section,
            number,
            name: None,
        };
        if number >= ENTRIES_MAX {
            return Err(entry.fault("", format!("a section has at most {ENTRIES_MAX} entries")));
        }
        let value = toml_json::to_json(text, item).map_err(|Fault { line, message }| {
            FileError::Section {
                path: path.to_owned(),
                line,
                section: entry.title(),
                message,
            }
        })?;
        entry.name = value["name"].as_str().map(str::to_owned);
        out.push((entry, value));
    }
    Ok(out)
}

/// A table is keyed and holds JSON unless it says otherwise.
fn new_table(value: &Value) -> Result<NewTable, String> {
    let Some(fields) = value.as_object() else {
        return Err("expected fields such as name = \"shop.orders\"".to_owned());
    };
    let mut fields = fields.clone();
    for (name, usual) in [("kind", "keyed"), ("value", "json")] {
        fields.entry(name).or_insert_with(|| usual.into());
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| onelog_record::in_json_terms(&error.to_string()))
}

fn unique<T>(list: &[Declared<T>], name: impl Fn(&T) -> &String) -> Result<(), FileError> {
    for (number, entry) in list.iter().enumerate() {
        let mut before = list[..number].iter();
        if let Some(first) = before.find(|first| name(&first.what) == name(&entry.what)) {
            let line = first.entry.line("");
            return Err(entry.fault(
                "name",
                format!("this name was given to the entry at line {line} already"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use onelog::{TableKind, ValueKind};

    use super::*;

    fn read(text: &str) -> Result<Declarations, FileError> {
        let table = toml_json::parse(text).unwrap();
        Declarations::read(Path::new("onelog.toml"), text, table.get_ref())
    }

    fn error(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    const SINK: &str = r#"
[[sinks]]
name = "reports"
kind = "sqlite"
path = "reports.db"
[[sinks.mappings]]
table = "shop.orders"
into = "orders"
columns.id = { from = "$key", type = "text" }
"#;

    #[test]
    fn tables_and_sinks_are_read() {
        let text = format!(
            "[[tables]]\nname = \"shop.orders\"\n[[tables]]\nname = \"shop.clicks\"\nkind = \"stream\"\nvalue = \"bytes\"\n{SINK}"
        );
        let declared = read(&text).unwrap();
        assert_eq!(declared.tables[0].what, NewTable::keyed("shop.orders"));
        assert_eq!(declared.tables[1].what.kind, TableKind::Stream);
        assert_eq!(declared.tables[1].what.value, ValueKind::Bytes);
        assert_eq!(declared.sinks[0].what.name, "reports");
        assert!(!declared.sinks[0].says_paused);
        assert_eq!(
            declared.sinks[0].origin(),
            "onelog.toml, line 8: [[sinks]] 'reports'"
        );
    }

    #[test]
    fn an_error_names_the_line_the_section_the_place_and_what_to_do() {
        assert_eq!(
            error(&SINK.replace("\"text\"", "\"txt\"")),
            "onelog.toml, line 9: [[sinks]] 'reports', mappings[0].columns.id.type: unknown type 'txt'; did you mean 'text'?"
        );
        assert_eq!(
            error(&SINK.replace("path =", "pth =")),
            "onelog.toml, line 5: [[sinks]] 'reports', pth: unknown field 'pth'; did you mean 'path'?"
        );
        let unnamed = error("[[tables]]\nkind = \"keyed\"");
        assert!(unnamed.contains("line 1: [[tables]] number 1: missing field `name`"));
        let date = error("[[sinks]]\nname = \"a\"\n\nkind = 1979-05-27\n");
        assert!(
            date.contains("line 4: [[sinks]] number 1: this is a date"),
            "{date}"
        );
    }

    #[test]
    fn two_entries_of_one_name_are_refused() {
        let twice = error(&format!("{SINK}{SINK}"));
        assert!(
            twice.contains(
                "line 12: [[sinks]] 'reports', name: this name was given to the entry at line 2"
            ),
            "{twice}"
        );
    }
}

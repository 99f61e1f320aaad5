//! The definition of a sink as the command line gives it: a file, or flags.

use std::path::PathBuf;

use onelog_client::ClientError;
use onelog_command::{CommandError, DefinitionFile};
use onelog_stores::KINDS;
use serde_json::{Map, Value, json};

use super::kind_flags::KindFlags;

#[derive(Debug, clap::Args)]
pub struct Source {
    /// A file with the definition as JSON or TOML, or a server's configuration; - is standard input.
    /// Or use the flags
    #[arg(required_unless_present = "to", conflicts_with_all = ["to", "table"])]
    file: Option<PathBuf>,
    /// The sink's name; of a configuration, the sink that is meant
    #[arg(long)]
    name: Option<String>,
    #[arg(long, value_name = "URL", requires = "table", help = to_help())]
    to: Option<String>,
    /// A table to follow, and its name in the store after '='; can be given several times
    #[arg(long, value_name = "TABLE[=INTO]", requires = "to")]
    table: Vec<String>,
    /// A column of the one table: its name, its type, and where it comes from ($key, $version, a
    /// field; a field of the same name when not given); can be given several times
    #[arg(long, value_name = "NAME:TYPE[=FROM]", requires = "to")]
    column: Vec<String>,
    /// How the key in the store is made, such as order:{$key}
    #[arg(long, value_name = "TEMPLATE", requires = "to")]
    key: Option<String>,
    /// A jq program that says which records make rows
    #[arg(long = "where", value_name = "JQ", requires = "to")]
    filter: Option<String>,
    /// What happens to a record that the store refuses
    #[arg(long, value_name = "POLICY", requires = "to", value_parser = ["stop", "park"])]
    on_refused: Option<String>,
    /// How often the store is compared with the log
    #[arg(long, value_name = "TIME", requires = "to")]
    verify_every: Option<String>,
    /// How much of the log is kept while the store is away
    #[arg(long, value_name = "SIZE", requires = "to")]
    keep_log: Option<String>,
    /// How much of the log, unpacked, one batch may have
    #[arg(long, value_name = "SIZE", requires = "to")]
    batch_bytes: Option<String>,
    /// How many rows of a table a backfill may delete
    #[arg(long, value_name = "COUNT", requires = "to")]
    max_deletes: Option<u64>,
    /// The id of another log, whose sink of this name in the store is taken with its tables
    #[arg(long, value_name = "LOG", requires = "to")]
    take_from_log: Option<String>,
    /// The number of the node of a cluster on which it runs while that is there
    #[arg(long, value_name = "NODE", requires = "to")]
    run_on: Option<u64>,
    #[command(flatten)]
    of_kind: KindFlags,
}

fn to_help() -> String {
    format!(
        "The store: {}. A password can be given as ${{NAME}}, an environment variable of the server",
        KINDS.addresses()
    )
}

/// A definition on its way to the server.
pub enum Definition {
    File(DefinitionFile),
    Flags(Value),
}

impl Source {
    /// The one definition that is meant.
    pub fn read(&self) -> Result<Definition, CommandError> {
        let mut all = self.read_all()?;
        match (all.pop(), all.is_empty()) {
            (Some(one), true) => Ok(one),
            (last, _) => {
                let names: Vec<&str> = all
                    .iter()
                    .chain(&last)
                    .filter_map(Definition::name)
                    .collect();
                Err(CommandError::Usage(format!(
                    "the configuration has the sinks {}: --name says which is meant",
                    names.join(", ")
                )))
            }
        }
    }

    /// Every definition of the file, or that of the flags.
    pub fn read_all(&self) -> Result<Vec<Definition>, CommandError> {
        let Some(file) = &self.file else {
            return Ok(vec![Definition::Flags(self.read_flags()?)]);
        };
        let sinks = DefinitionFile::read(file)?.sinks();
        let all: Vec<Definition> = sinks
            .into_iter()
            .map(Definition::File)
            .filter(|sink| self.name.is_none() || sink.name() == self.name.as_deref())
            .collect();
        match (all.is_empty(), &self.name) {
            (true, Some(name)) => Err(CommandError::Usage(format!(
                "{} defines no sink '{name}'",
                file.display()
            ))),
            (true, None) => Err(CommandError::Usage(format!(
                "{} defines no sink",
                file.display()
            ))),
            (false, _) => Ok(all),
        }
    }

    fn read_flags(&self) -> Result<Value, CommandError> {
        let usage = |what: String| CommandError::Usage(what);
        let to = self.to.as_deref().unwrap_or_default();
        let target = KINDS
            .target(to)
            .map_err(|error| usage(format!("--to: {}", error.what)))?;
        let kind = target.kind();
        let name = match (&self.name, kind.name()) {
            (Some(name), _) => name.clone(),
            (None, kind) => kind.to_owned(),
        };
        let mut definition = Map::new();
        definition.insert("name".into(), json!(name));
        definition.insert("kind".into(), json!(kind.name()));
        definition.extend(kind.fields_of(to));
        let (of_sink, of_mapping) = self.of_kind.fields(kind)?;
        definition.extend(of_sink);
        if self.table.len() > 1 && !(self.column.is_empty() && self.filter.is_none()) {
            return Err(usage(
                "--column and --where need one --table; give several in a file".to_owned(),
            ));
        }
        let mut mappings = Vec::with_capacity(self.table.len());
        for table in &self.table {
            let mut mapping = self.mapping(table)?;
            mapping.extend(of_mapping.clone());
            mappings.push(Value::Object(mapping));
        }
        definition.insert("mappings".into(), Value::Array(mappings));
        for (field, value) in [
            ("on_refused", &self.on_refused),
            ("verify_every", &self.verify_every),
            ("keep_log", &self.keep_log),
            ("batch_bytes", &self.batch_bytes),
            ("take_from_log", &self.take_from_log),
        ] {
            if let Some(value) = value {
                definition.insert(field.into(), json!(value));
            }
        }
        if let Some(max) = self.max_deletes {
            definition.insert("max_deletes".into(), json!(max));
        }
        if let Some(node) = self.run_on {
            definition.insert("run_on".into(), json!(node));
        }
        Ok(Value::Object(definition))
    }

    fn mapping(&self, table: &str) -> Result<Map<String, Value>, CommandError> {
        let (table, into) = match table.split_once('=') {
            Some((table, into)) => (table, into),
            None => (table, table.rsplit('.').next().unwrap_or(table)),
        };
        let mut mapping = Map::new();
        mapping.insert("table".into(), json!(table));
        mapping.insert("into".into(), json!(into));
        let mut columns = Map::new();
        for column in &self.column {
            let parsed = column.split_once(':').map(|(name, rest)| {
                let (kind, from) = rest.split_once('=').unwrap_or((rest, name));
                (name, json!({"from": from, "type": kind}))
            });
            let Some((name, value)) = parsed else {
                return Err(CommandError::Usage(format!(
                    "--column '{column}': expected NAME:TYPE or NAME:TYPE=FROM, such as total:numeric=/total"
                )));
            };
            if columns.insert(name.to_owned(), value).is_some() {
                return Err(CommandError::Usage(format!(
                    "--column '{name}' is given twice"
                )));
            }
        }
        if !columns.is_empty() {
            mapping.insert("columns".into(), Value::Object(columns));
        }
        for (field, value) in [("key", &self.key), ("where", &self.filter)] {
            if let Some(value) = value {
                mapping.insert(field.into(), json!(value));
            }
        }
        Ok(mapping)
    }
}

impl Definition {
    /// The sink's name, as far as the definition has one.
    pub fn name(&self) -> Option<&str> {
        let value = match self {
            Self::File(file) => &file.value,
            Self::Flags(value) => value,
        };
        value["name"].as_str()
    }

    pub fn body(&self) -> Result<Vec<u8>, CommandError> {
        match self {
            Self::File(file) => file.body(),
            Self::Flags(value) => {
                serde_json::to_vec(value).map_err(|error| ClientError::Encode(error).into())
            }
        }
    }

    /// A server's error about this definition.
    pub fn refused(&self, error: ClientError) -> CommandError {
        match self {
            Self::File(file) => file.refused(error),
            Self::Flags(_) => error.into(),
        }
    }
}

//! What the rest of onelog knows of SQLite.

use std::path::PathBuf;
use std::sync::Arc;

use onelog_mapping::{
    ColumnType, DefinitionError, FieldRule, FieldValue, KeyForm, MappingRules, Object, Plan,
    RowForm,
};
use onelog_store::{Address, Store, StoreError, StoreKind, StoreReader, Target};
use serde_json::{Map, Value, json};

use crate::SqliteStore;
use crate::bookkeeping::followed_log;
use crate::connection::file_identity;
use crate::ddl::lost::lost;
use crate::reader::{SqliteReader, count_rows};

const PATH: FieldRule = FieldRule {
    name: "path",
    help: "the database's file",
    value: FieldValue::Text,
};
const SCHEME: &str = "sqlite";
/// What begins so is SQLite's own.
const RESERVED: &str = "sqlite_";

pub static KIND: SqliteKind = SqliteKind;

static RULES: MappingRules = MappingRules {
    kind: "sqlite",
    has_type: |kind| !matches!(kind, ColumnType::List(_)),
    full_text: true,
    folds_names: true,
    options: &[],
    keys: KeyForm::Column,
    rows: RowForm::Columns,
    columns_by: None,
    check: check_names,
};

fn check_names(plan: &Plan) -> Result<(), DefinitionError> {
    let mut names = plan.mappings.iter().map(|mapping| mapping.into.as_str());
    let reserved = names.position(|name| name.to_ascii_lowercase().starts_with(RESERVED));
    reserved.map_or(Ok(()), |n| {
        Err(DefinitionError::new(
            format!("mappings[{n}].into"),
            format!("names that start with '{RESERVED}' are reserved"),
        ))
    })
}

/// SQLite, a database in a file.
#[derive(Debug)]
pub struct SqliteKind;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteTarget {
    /// A relative path starts at the working directory of the process.
    pub path: PathBuf,
}

impl StoreKind for SqliteKind {
    fn rules(&self) -> &'static MappingRules {
        &RULES
    }

    fn schemes(&self) -> &'static [&'static str] {
        &[SCHEME]
    }

    fn fields(&self) -> &'static [FieldRule] {
        &[PATH]
    }

    fn is_on_one_machine(&self) -> bool {
        true
    }

    fn example(&self) -> Value {
        json!({"name": "search", "kind": "sqlite", "path": "/var/lib/onelog/search.db", "mappings": [{
            "table": "shop.orders", "into": "orders",
            "columns": {
                "id": {"from": "$key", "type": "text"},
                "total": {"from": "/total", "type": "real"},
            },
        }]})
    }

    fn target(&self, definition: &Object<'_>) -> Result<Arc<dyn Target>, DefinitionError> {
        let path = definition.text(PATH.name)?;
        if path.is_empty() || path.contains('\0') {
            return Err(DefinitionError::new(PATH.name, "a file's path is needed"));
        }
        Ok(Arc::new(SqliteTarget {
            path: PathBuf::from(path),
        }))
    }

    fn fields_of(&self, address: &str) -> Map<String, Value> {
        let path = address
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.strip_prefix("://"));
        Map::from_iter([(PATH.name.to_owned(), path.unwrap_or(address).into())])
    }
}

impl Target for SqliteTarget {
    fn kind(&self) -> &'static dyn StoreKind {
        &KIND
    }

    fn address(&self) -> Option<&Address> {
        None
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn fields(&self, _secrets: bool) -> Map<String, Value> {
        Map::from_iter([(PATH.name.to_owned(), self.place().into())])
    }

    fn is_same_store(&self, other: &dyn Target) -> bool {
        let Some(other) = (other as &dyn std::any::Any).downcast_ref::<Self>() else {
            return false;
        };
        let files = (self.path.canonicalize(), other.path.canonicalize());
        self.path == other.path || matches!(files, (Ok(a), Ok(b)) if a == b)
    }

    /// SQLite names the write-ahead file after the name by which the file was opened. With two names
    /// there are two, and neither writer sees the other's.
    fn excludes(&self, other: &dyn Target) -> Option<(&'static str, String)> {
        let other = (other as &dyn std::any::Any).downcast_ref::<Self>()?;
        let is_linked = file_identity(&self.path).is_some()
            && file_identity(&self.path) == file_identity(&other.path)
            && !self.is_same_store(other);
        is_linked.then(|| {
            let what = format!(
                "this is the file {} under another name (a hard link), which damages it when both are written; give the other name as the path",
                other.path.display()
            );
            (PATH.name, what)
        })
    }

    fn check_place(&self) -> Result<(), String> {
        match self.path.exists() {
            true => Ok(()),
            false => Err(format!("there is no file {}", self.path.display())),
        }
    }

    fn open(
        &self,
        sink: &str,
        log_id: &str,
        plan: Arc<Plan>,
    ) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(SqliteStore::open(&self.path, sink, log_id, plan)?))
    }

    fn open_reader(&self, plan: &Arc<Plan>) -> Result<Box<dyn StoreReader>, StoreError> {
        let plan = Arc::clone(plan);
        Ok(Box::new(SqliteReader::of_tables(&self.path, plan)?))
    }

    fn count_rows(&self, into: &str) -> Result<Option<u64>, StoreError> {
        count_rows(&self.path, into)
    }

    fn lost(&self, plan: &Plan, mapping: usize) -> Result<Vec<String>, StoreError> {
        lost(&self.path, &plan.mappings[mapping])
    }

    fn followed_log(&self, sink: &str, _log_id: &str) -> Result<Option<String>, StoreError> {
        followed_log(&self.path, sink)
    }
}

#[cfg(test)]
mod tests {
    use onelog_record::{TableDefinition, TableId, TableKind, ValueKind};
    use onelog_store::{Kinds, SinkDefinition};

    use super::*;

    static KINDS: Kinds = Kinds::new(&[&KIND]);

    #[test]
    fn a_name_of_sqlites_own_is_refused() {
        let orders = TableDefinition {
            id: TableId(1024),
            name: "shop.orders".into(),
            kind: TableKind::Keyed,
            value: ValueKind::Json,
            schema: None,
            unique: Vec::new(),
            dropped: false,
        };
        let plan = |name: &str| {
            let definition = json!({"name": "s", "kind": "sqlite", "path": "s.db", "mappings": [
                {"table": "shop.orders", "into": "orders"}, {"table": "shop.orders", "into": name}]});
            let definition = SinkDefinition::from_json(KINDS, &definition).unwrap();
            definition.plan(std::slice::from_ref(&orders))
        };
        assert_eq!(
            plan("SQLite_orders").unwrap_err().to_string(),
            "mappings[1].into: names that start with 'sqlite_' are reserved"
        );
        assert!(plan("sqlite").is_ok());
    }
}

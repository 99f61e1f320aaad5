//! Tables, their rules and an applied state, all in memory: what the validator rests on.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use onelog_commit::{Latest, Rules, Schema, SchemaFault, TableRules, View, ViewError, Written};
use onelog_record::{
    FieldPath, Json, KeyRange, Op, Position, SYSTEM_TABLES, TABLE_UNIQUE, TableDefinition, TableId,
    TableKind, Transactions, USER_TABLES_FROM, ValueKind,
};
use serde_json::Value;

/// A keyed table of JSON.
pub const DOCUMENTS: TableId = TableId(1024);
/// A keyed table of bytes.
pub const BLOBS: TableId = TableId(1025);
pub const CLICKS: TableId = TableId(1026);
/// A keyed table of JSON objects with the unique field `/name`.
pub const USERS: TableId = TableId(1027);

/// The tables by name.
pub const TABLES: [(&str, TableId, TableKind, ValueKind); 4] = [
    (
        "shop.documents",
        DOCUMENTS,
        TableKind::Keyed,
        ValueKind::Json,
    ),
    ("shop.blobs", BLOBS, TableKind::Keyed, ValueKind::Bytes),
    ("shop.clicks", CLICKS, TableKind::Stream, ValueKind::Json),
    ("shop.users", USERS, TableKind::Keyed, ValueKind::Json),
];

/// The applied state and the rules.
#[derive(Debug)]
pub struct World {
    rules: Vec<TableRules>,
    rows: BTreeMap<(TableId, Bytes), Latest>,
    floor: Position,
    position: Position,
}

#[derive(Debug)]
struct AnObject;

impl Schema for AnObject {
    fn check(&self, value: &Json<'_>, _: &mut usize) -> Result<(), SchemaFault> {
        matches!(value, Json::Object(_))
            .then_some(())
            .ok_or_else(|| SchemaFault::Breaks("it must be an object".to_owned()))
    }
}

impl Default for World {
    fn default() -> Self {
        let user = TABLES.map(|(name, id, kind, value)| definition(id, name, kind, value));
        let system = SYSTEM_TABLES
            .map(|(id, name)| definition(id, name, TableKind::Keyed, ValueKind::Bytes));
        Self {
            rules: user.into_iter().chain(system).collect(),
            rows: BTreeMap::new(),
            floor: Position::ZERO,
            position: Position::ZERO,
        }
    }
}

fn definition(id: TableId, name: &str, kind: TableKind, value: ValueKind) -> TableRules {
    let is_users = id == USERS;
    let name_field = FieldPath::parse("/name").expect("it is a path");
    TableRules {
        definition: Arc::new(TableDefinition {
            id,
            name: name.to_owned(),
            kind,
            value,
            schema: None,
            unique: if is_users {
                vec![name_field]
            } else {
                Vec::new()
            },
            dropped: false,
        }),
        schema: is_users.then(|| Arc::new(AnObject) as Arc<dyn Schema>),
    }
}

impl World {
    /// Applies a body whose first record has the offset of the present position.
    pub fn apply(&mut self, body: &Bytes) {
        let transactions = Transactions::new(body.clone(), self.position.next_offset());
        for transaction in transactions {
            let transaction = transaction.expect("the validator wrote a body that can be read");
            for record in transaction.records() {
                let record = record.expect("the records of a readable transaction can be read");
                assert_eq!(record.offset, self.position.next_offset());
                self.position = record.offset.after();
                if record.op == Op::Event {
                    continue;
                }
                let latest = Latest {
                    version: record.offset,
                    value: record.value,
                };
                self.rows.insert((record.table, record.key), latest);
            }
        }
    }

    /// Forgets the deletes below the present position.
    pub fn forget_deletes(&mut self) {
        self.rows.retain(|_, latest| latest.value.is_some());
        self.floor = self.position;
    }

    /// Every live row of the users' tables satisfies the rules of its table.
    pub fn assert_rules(&self) {
        let mut names = BTreeMap::new();
        for ((table, key), latest) in &self.rows {
            let Some(value) = &latest.value else {
                continue;
            };
            assert!(*table >= USER_TABLES_FROM || *table == TABLE_UNIQUE);
            assert_ne!(*table, CLICKS, "a stream has no state");
            if *table != USERS {
                continue;
            }
            let value: Value = serde_json::from_slice(value).expect("the schema demands JSON");
            assert!(value.is_object(), "the schema is kept");
            if let Some(Value::String(name)) = value.get("name") {
                match names.entry(name.clone()) {
                    Entry::Vacant(free) => free.insert(key.clone()),
                    Entry::Occupied(owner) => panic!("{name}: {owner:?} and {key:?}"),
                };
            }
        }
    }
}

impl View for World {
    fn newest(&self, table: TableId, key: &[u8]) -> Result<Option<Latest>, ViewError> {
        Ok(self
            .rows
            .get(&(table, Bytes::copy_from_slice(key)))
            .cloned())
    }

    fn written_since(
        &self,
        range: &KeyRange,
        since: Position,
        _: &mut usize,
    ) -> Result<Written, ViewError> {
        Ok(self
            .rows
            .range((range.table, range.from.clone())..)
            .take_while(|((table, key), _)| {
                *table == range.table && range.to.as_ref().is_none_or(|to| key < to)
            })
            .find(|(_, latest)| !since.sees(latest.version))
            .map(|((_, key), latest)| (key.clone(), latest.version))
            .into())
    }

    fn floor(&self) -> Position {
        self.floor
    }

    fn position(&self) -> Position {
        self.position
    }
}

impl Rules for World {
    fn table(&self, table: TableId) -> Option<&TableRules> {
        self.rules.iter().find(|rules| rules.definition.id == table)
    }
}

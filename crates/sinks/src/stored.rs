//! The record of a sink in `onelog.sinks`: its definition, and the numbers of the tables that it
//! follows.
//!
//! ```json
//! {"name": "search", "kind": "sqlite", "path": "search.db", "mappings": [ … ],
//!  "table_ids": {"shop.orders": 1024}}
//! ```
//! A table that was deleted and made again has the name of the former one, but another number and
//! none of its rows: a sink must not take it for the one whose rows are in its store. Records of
//! earlier versions have no numbers; the first ones that are met are taken.

use std::collections::BTreeMap;

use bytes::Bytes;
use onelog::{Follower, KeyRange, Node, TableId};
use onelog_mapping::{DefinitionError, Plan};
use onelog_record::TABLE_SINKS;
use onelog_store::{Kinds, SinkDefinition};
use serde_json::{Value, json};

use crate::error::{SinkFault, SinksError};

const TABLE_IDS: &str = "table_ids";

/// The numbers of tables by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableIds(BTreeMap<String, u32>);

impl TableIds {
    pub(crate) fn of(plan: &Plan) -> Self {
        let tables = plan.mappings.iter();
        Self(
            tables
                .map(|mapping| (mapping.table_name.clone(), mapping.table.0))
                .collect(),
        )
    }

    /// These, but the numbers of `former` where both have a name.
    pub(crate) fn or_former(mut self, former: &Self) -> Self {
        for (name, id) in &mut self.0 {
            if let Some(known) = former.0.get(name) {
                *id = *known;
            }
        }
        self
    }

    /// Why a sink that follows these must not go on by a plan: a name means another table now.
    pub(crate) fn check(&self, plan: &Plan) -> Result<(), SinkFault> {
        let another = plan.mappings.iter().find_map(|mapping| {
            let known = *self.0.get(&mapping.table_name)?;
            (TableId(known) != mapping.table).then_some((mapping, known))
        });
        let Some((mapping, known)) = another else {
            return Ok(());
        };
        Err(SinkFault::new(format!(
            "the table '{}' is not the one that this sink followed: that one was deleted (its number was {known}), and another one was made under its name (its number is {}). The store still has the rows of the former table. If it is to follow the new one, rebuild the sink; else delete the sink, which leaves the rows",
            mapping.table_name, mapping.table.0
        )))
    }
}

pub(crate) struct StoredSink {
    pub(crate) definition: SinkDefinition,
    pub(crate) tables: TableIds,
}

impl StoredSink {
    pub(crate) fn read(kinds: Kinds, bytes: &[u8]) -> Result<Self, DefinitionError> {
        let broken = |error| DefinitionError::new("the definition", format!("{error}"));
        let mut record: Value = serde_json::from_slice(bytes).map_err(broken)?;
        let ids = record
            .as_object_mut()
            .and_then(|fields| fields.remove(TABLE_IDS));
        let ids = ids.map(serde_json::from_value).transpose();
        Ok(Self {
            tables: TableIds(ids.map_err(broken)?.unwrap_or_default()),
            definition: SinkDefinition::from_json(kinds, &record)?,
        })
    }
}

pub(crate) fn record(definition: &SinkDefinition, tables: &TableIds) -> Bytes {
    let mut record = definition.to_stored();
    if !tables.0.is_empty() {
        record[TABLE_IDS] = json!(tables.0);
    }
    record.to_string().into()
}

/// The definitions that the log has. One that cannot be read stops nothing but itself. Where its
/// kind of store is not part of this program, the log is kept for a program that has it.
pub(crate) fn defined(
    kinds: Kinds,
    node: &Node,
) -> Result<(Vec<StoredSink>, Vec<Follower>), SinksError> {
    let range = KeyRange {
        table: TABLE_SINKS,
        from: Bytes::new(),
        to: None,
    };
    let (mut out, mut foreign) = (Vec::new(), Vec::new());
    for row in node.snapshot().scan(&range, false)? {
        let row = row?;
        match StoredSink::read(kinds, &row.value) {
            Ok(sink) => out.push(sink),
            Err(error) => {
                let sink = String::from_utf8_lossy(&row.key);
                tracing::error!(%sink, %error, "the definition of a sink cannot be read");
                if error.place == "kind" {
                    foreign.push(node.follower(&onelog::sink_follower(&sink), node.log_start()));
                }
            }
        }
    }
    Ok((out, foreign))
}

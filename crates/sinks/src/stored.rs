//! The record of a sink in `onelog.sinks`: its definition, the numbers of the tables that it
//! follows, what its last comparison found, mappings of former definitions, and whether its right to
//! take a store is used up.
//!
//! ```json
//! {"name": "search", "kind": "sqlite", "path": "search.db", "mappings": [ … ],
//!  "table_ids": {"shop.orders": 1024},
//!  "verified": {"position": 7, "at_ms": 1790000000000, "took_ms": 3, "equal": true,
//!               "differences_total": 0, "repaired": 0, "scheduled": false},
//!  "former": [ … ], "taken_from_log": "0b57…"}
//! ```
//! A table that was deleted and made again has the name of the former one, but another number and
//! none of its rows: a sink must not take it for the one whose rows are in its store. Records of
//! earlier versions have no numbers; the first ones that are met are taken.
//!
//! `former` has the mappings by which the store may have been backfilled before the definition was
//! replaced by one whose keys are in other columns: what a backfill would delete is counted by them.

use std::collections::BTreeMap;

use bytes::Bytes;
use onelog::{Follower, KeyRange, Node, TableId};
use onelog_mapping::{DefinitionError, Mapping, Plan};
use onelog_record::TABLE_SINKS;
use onelog_store::{Kinds, SinkDefinition};
use serde_json::{Value, json};

use crate::deletions::keys_of;
use crate::error::{SinkFault, SinksError};
use crate::permission::TAKEN_FROM_LOG;
use crate::progress::VerificationSummary;

const TABLE_IDS: &str = "table_ids";
const VERIFIED: &str = "verified";
const FORMER: &str = "former";
/// The most mappings of former definitions that are kept.
const FORMER_MAX: usize = 512;

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

#[derive(Clone, Debug)]
pub(crate) struct StoredSink {
    pub(crate) definition: SinkDefinition,
    pub(crate) tables: TableIds,
    pub(crate) former: Vec<Mapping>,
    pub(crate) verified: Option<VerificationSummary>,
}

impl StoredSink {
    pub(crate) fn read(kinds: Kinds, bytes: &[u8]) -> Result<Self, DefinitionError> {
        let broken = |error| DefinitionError::new("the definition", format!("{error}"));
        let mut record: Value = serde_json::from_slice(bytes).map_err(broken)?;
        let mut take = |name: &str| {
            let fields = record.as_object_mut();
            fields.and_then(|fields| fields.remove(name))
        };
        let (ids, verified, former) = (take(TABLE_IDS), take(VERIFIED), take(FORMER));
        // Carried over from record to record, see `permission`.
        take(TAKEN_FROM_LOG);
        let ids = ids.map(serde_json::from_value).transpose();
        let verified = verified.map(serde_json::from_value).transpose();
        let tables = TableIds(ids.map_err(broken)?.unwrap_or_default());
        let verified = verified.map_err(broken)?;
        let definition = SinkDefinition::from_json(kinds, &record)?;
        let rules = definition.target.kind().rules();
        let former = former.as_ref().and_then(Value::as_array);
        let former = former.into_iter().flatten();
        let former = former.map(|mapping| Mapping::from_json(FORMER, mapping, rules, &[rules]));
        Ok(Self {
            former: former.collect::<Result<_, _>>()?,
            definition,
            tables,
            verified,
        })
    }

    pub(crate) fn record(&self) -> Bytes {
        let mut record = self.definition.to_stored();
        if !self.tables.0.is_empty() {
            record[TABLE_IDS] = json!(self.tables.0);
        }
        if let Some(verified) = &self.verified {
            record[VERIFIED] = json!(verified);
        }
        if !self.former.is_empty() {
            record[FORMER] = json!(self.former);
        }
        record.to_string().into()
    }

    /// The mappings by which the store of this sink may have been backfilled, as far as they have
    /// other keys than those of `next`; `is_backfilled`: by its own.
    pub(crate) fn former_of(&self, next: &SinkDefinition, is_backfilled: bool) -> Vec<Mapping> {
        let target = &self.definition.target;
        let rules = target.kind().rules();
        let is_same = target.kind().name() == next.target.kind().name()
            && target.is_same_store(next.target.as_ref());
        if !is_same {
            return Vec::new();
        }
        let before = if is_backfilled {
            &[][..]
        } else {
            &self.former[..]
        };
        let all = self.definition.mappings.iter().chain(before);
        let mut out: Vec<Mapping> = all
            .filter(|former| {
                let mut next = next.mappings.iter();
                let next = next.find(|next| rules.is_same_table(&next.into, &former.into));
                next.is_some_and(|next| keys_of(next).columns != keys_of(former).columns)
            })
            .cloned()
            .collect();
        out.truncate(FORMER_MAX);
        out
    }
}

const ALL: KeyRange = KeyRange {
    table: TABLE_SINKS,
    from: Bytes::new(),
    to: None,
};

/// The sinks that follow a table, also of kinds that this program does not know.
pub(crate) fn followers(node: &Node, table: &str) -> Result<Vec<String>, SinksError> {
    let mut out = Vec::new();
    for row in node.snapshot().scan(&ALL, false)? {
        let row = row?;
        let record: Value = serde_json::from_slice(&row.value).unwrap_or_default();
        let mut mappings = record["mappings"].as_array().into_iter().flatten();
        if mappings.any(|mapping| mapping["table"] == table) {
            out.push(String::from_utf8_lossy(&row.key).into_owned());
        }
    }
    Ok(out)
}

/// The definitions that the log has. One that cannot be read stops nothing but itself. Where its
/// kind of store is not part of this program, the log is kept for a program that has it.
pub(crate) fn defined(
    kinds: Kinds,
    node: &Node,
) -> Result<(Vec<StoredSink>, BTreeMap<String, Follower>), SinksError> {
    let (mut out, mut foreign) = (Vec::new(), BTreeMap::new());
    for row in node.snapshot().scan(&ALL, false)? {
        let row = row?;
        match StoredSink::read(kinds, &row.value) {
            Ok(sink) => out.push(sink),
            Err(error) => {
                let sink = String::from_utf8_lossy(&row.key);
                tracing::error!(%sink, %error, "the definition of a sink cannot be read");
                if error.place == "kind" {
                    let follower = node.follower(&onelog::sink_follower(&sink), node.log_start());
                    foreign.insert(sink.into_owned(), follower);
                }
            }
        }
    }
    Ok((out, foreign))
}

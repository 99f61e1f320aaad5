//! Whether a table that is there is one that a mapping can write, and what of it does not fit.
//!
//! A column may be narrower than onelog's own type where a value that does not fit is refused and
//! never changed: `integer` for 64-bit numbers, `varchar(n)`, `numeric(p, s)`, `timestamp`, an
//! enumeration. Columns that the mapping does not fill may be there when they fill themselves.

use onelog_mapping::{ColumnType, EXISTING, Element, MappingPlan};
use onelog_store::{Remedy, StoreError, TABLE_RENEWED};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::shape::{self, Numbers, Shape};
use super::unique::{UNIQUE, Unique, key_fault};
use super::{IDENTIFIER_BYTES_MAX, quote, table};
use crate::bookkeeping::{Identity, Owner, check_owner};
use crate::encode::{Limit, Wire, sql_type};
use crate::error::Fault;

/// What has the name of a mapping's table, when the sink may have that name.
pub(crate) enum TargetState {
    Absent,
    /// A table that can be written as it is.
    Fits(TargetTable),
    /// A table that onelog made, and that no longer fits: another one takes its place.
    Outgrown,
}

/// Refuses names that this sink may not have: whatever onelog did not make, or writes for another
/// sink. An empty table that fits may be written, and any that the mapping calls its own.
pub(crate) async fn check_target(
    client: &Client,
    identity: &Identity,
    mapping: &MappingPlan,
) -> Result<TargetState, Fault> {
    // In this order: a table and its owner are committed together, so a table that is seen here
    // has an owner that is seen behind it.
    let found = find_table(client, &identity.schema, &mapping.into).await?;
    let owner = check_owner(client, identity, &mapping.into).await?;
    state_of(client, identity, mapping, found, owner).await
}

/// The same of a table that was looked at, with what is recorded of it.
pub(crate) async fn state_of(
    client: &Client,
    identity: &Identity,
    mapping: &MappingPlan,
    found: Existing,
    owner: Option<Owner>,
) -> Result<TargetState, Fault> {
    let bad = bad_names(mapping);
    if !bad.is_empty() {
        return Err(schema_mismatch(mapping, &bad, Remedy::Said));
    }
    let taken = |what: String| {
        Err(Fault::Store(StoreError::NotOwner {
            into: mapping.into.clone(),
            owner: None,
            what,
        }))
    };
    let existing = mapping.options.flag(EXISTING);
    let facts = match found {
        Existing::Nothing if existing => {
            return Err(schema_mismatch(
                mapping,
                &["it is not there, and the mapping says 'existing'; create it".to_owned()],
                Remedy::Said,
            ));
        }
        Existing::Nothing => return Ok(TargetState::Absent),
        Existing::Other(kind) => {
            return taken(format!(
                "a {kind} of this name is there that onelog did not make; choose another name for 'into'"
            ));
        }
        Existing::Table(facts) if !facts.shared.is_empty() => {
            return Err(schema_mismatch(mapping, &facts.shared, Remedy::Change));
        }
        Existing::Table(facts) => facts,
    };
    let made = match owner.filter(|owner| owner.made) {
        // What was dropped or renamed leaves its name to the user, who may give it to another table.
        Some(Owner { shape, .. }) => {
            shape::is_of_table(client, identity, shape.as_deref(), facts.oid).await?
        }
        None => false,
    };
    match facts.check_existing(mapping) {
        Ok(target) if existing || made || facts.is_empty => Ok(TargetState::Fits(target)),
        Ok(_) => taken(not_ours("it has rows")),
        Err(why) if existing => Err(schema_mismatch(mapping, &why, Remedy::Change)),
        Err(_) if made => Ok(TargetState::Outgrown),
        Err(mut why) => {
            if !facts.is_empty {
                why.insert(0, "it has rows".to_owned());
            }
            taken(not_ours(&why.join("; ")))
        }
    }
}

fn not_ours(why: &str) -> String {
    format!(
        "a table of this name is there that onelog did not make ({why}); choose another name for 'into', drop the table, or let the mapping say \"existing\": true to backfill it as it is"
    )
}

/// How the mapping fits the table that is there, which is as it was when onelog backfilled it. What
/// may have changed its values is recorded, so that the transaction is to be committed in either
/// case.
pub(crate) async fn check_shape(
    client: &Client,
    identity: &Identity,
    mapping: &MappingPlan,
) -> Result<TargetTable, Fault> {
    check_owner(client, identity, &mapping.into).await?;
    let mut remedy = Remedy::of(mapping);
    let wrong = match find_table(client, &identity.schema, &mapping.into).await? {
        Existing::Nothing => vec!["it is not there".to_owned()],
        Existing::Other(kind) => {
            remedy = Remedy::Said;
            vec![format!(
                "a {kind} has its name: drop or rename it, then run onelog sinks rebuild"
            )]
        }
        Existing::Table(facts) => match facts.check_existing(mapping) {
            Ok(target) => {
                let shape = facts.shape(mapping);
                let changed = shape.check(client, identity, mapping, true).await?;
                if changed.is_empty() {
                    return Ok(target);
                }
                remedy = Remedy::Said;
                changed
            }
            Err(wrong) => {
                if !facts.shared.is_empty() {
                    // No rebuild takes such a table.
                    remedy = Remedy::Change;
                }
                // It may be put back with the values that this has left.
                let shape = facts.shape(mapping);
                let changed = shape.check(client, identity, mapping, false).await?;
                if remedy == Remedy::Rebuild && changed.iter().any(|what| what == TABLE_RENEWED) {
                    // No rebuild takes what onelog did not make.
                    remedy = Remedy::Said;
                    vec![TABLE_RENEWED.to_owned()]
                } else {
                    wrong
                }
            }
        },
    };
    Err(schema_mismatch(mapping, &wrong, remedy))
}

/// Names the triggers of a table once a session.
pub(crate) async fn warn_of_triggers(
    client: &Client,
    identity: &Identity,
    mapping: &MappingPlan,
) -> Result<(), Fault> {
    if let Existing::Table(facts) = find_table(client, &identity.schema, &mapping.into).await?
        && !facts.triggers.is_empty()
    {
        tracing::warn!(
            sink = identity.sink,
            table = mapping.into,
            triggers = facts.triggers.join(", "),
            "the table has row triggers, which run for every row that onelog writes; one that changes these rows makes them differ from the log"
        );
    }
    Ok(())
}

/// Records how the table that was just backfilled is, in the transaction that did it: where it is not
/// what the rows were made for, they are made again.
pub(crate) async fn record_backfilled(
    client: &Client,
    identity: &Identity,
    mapping: &MappingPlan,
    backfilled: &TargetTable,
) -> Result<(), Fault> {
    if let Existing::Table(facts) = find_table(client, &identity.schema, &mapping.into).await?
        && facts
            .check_existing(mapping)
            .is_ok_and(|target| target == *backfilled)
    {
        return facts.shape(mapping).record(client, identity, mapping).await;
    }
    Err(Fault::Redefined(mapping.into.clone()))
}

pub(crate) fn schema_mismatch(mapping: &MappingPlan, what: &[String], remedy: Remedy) -> Fault {
    StoreError::mismatch(mapping, what.join("; "), remedy).into()
}

/// What is special about a column that fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TargetColumn {
    /// A cast that PostgreSQL does not make by itself when it writes.
    pub(crate) cast: Option<String>,
    pub(crate) limit: Limit,
}

/// How a mapping's columns fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetTable {
    pub(crate) columns: Vec<TargetColumn>,
    /// Whether it has columns that the mapping does not fill.
    pub(crate) has_more: bool,
}

impl TargetTable {
    /// A table that onelog makes itself.
    pub(crate) fn exact(mapping: &MappingPlan) -> Self {
        Self {
            columns: vec![TargetColumn::default(); mapping.columns.len()],
            has_more: false,
        }
    }

    /// How each column's cells are written.
    pub(crate) fn wires(&self, mapping: &MappingPlan) -> Vec<Wire> {
        let columns = mapping.columns.iter().zip(&self.columns);
        columns
            .map(|(column, target_column)| Wire {
                kind: column.kind,
                limit: target_column.limit,
            })
            .collect()
    }
}

/// What a name belongs to.
#[derive(Debug)]
pub(crate) enum Existing {
    Nothing,
    /// Something that is no table: what it is.
    Other(&'static str),
    Table(Box<TableFacts>),
}

/// A table as the catalog describes it.
#[derive(Debug)]
pub(crate) struct TableFacts {
    /// Its number in the catalog.
    oid: u32,
    columns: Vec<ColumnFacts>,
    unique: Vec<Unique>,
    pub(crate) is_empty: bool,
    unlogged: bool,
    /// Foreign keys that change this table's rows when others change, with their definitions.
    foreign: Vec<String>,
    /// Row triggers that are enabled.
    pub(crate) triggers: Vec<String>,
    /// By what its rows are also those of other tables.
    shared: Vec<String>,
}

#[derive(Debug)]
struct ColumnFacts {
    name: String,
    /// Its number in the catalog; one that is added again has another.
    number: i16,
    /// As PostgreSQL writes it, with length or digits.
    shown: String,
    /// The bare name of the type.
    type_name: String,
    is_enum: bool,
    modifier: i32,
    not_null: bool,
    /// A default or an identity fills it.
    fills_itself: bool,
    /// Always by the database, so that no client may fill it.
    generated: bool,
    deterministic: bool,
}

const COLUMNS: &str = "
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), t.typname::text, t.typtype = 'e',
  a.atttypmod, a.attnotnull, a.atthasdef OR a.attidentity <> '',
  a.attgenerated <> '' OR a.attidentity = 'a', coalesce(c.collisdeterministic, true), a.attnum
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

const FOREIGN: &str = "
SELECT format('%s %s', conname, pg_get_constraintdef(oid)) FROM pg_catalog.pg_constraint
WHERE conrelid = $1 AND contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
ORDER BY conname";

const TRIGGERS: &str = "
SELECT tgname::text FROM pg_catalog.pg_trigger
WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & 1 = 1 ORDER BY tgname";

/// A partition, and a table that inherits, is written through its parent as well; a parent's rows are
/// also its children's, where it is not a partitioned table, whose partitions refuse other sinks by
/// this. A rule sends writes elsewhere.
const SHARED: &str = "
SELECT CASE WHEN c.relispartition THEN format('it is a partition of %s: map that table', i.inhparent::regclass)
  ELSE format('it inherits from %s, whose rows are its rows as well', i.inhparent::regclass) END
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE i.inhrelid = $1
UNION ALL
SELECT format('%s inherits from it, whose rows are its rows as well', i.inhrelid::regclass)
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
WHERE i.inhparent = $1 AND c.relkind = 'r'
UNION ALL
SELECT format('the rule %s rewrites what is written to it: drop it, or disable it', rulename)
FROM pg_catalog.pg_rewrite WHERE ev_class = $1 AND ev_type <> '1' AND ev_enabled IN ('O', 'A')";

/// Looks at what is there under a name.
pub(crate) async fn find_table(
    client: &Client,
    schema: &str,
    name: &str,
) -> Result<Existing, Fault> {
    let found = client
        .query_typed_opt(
            "SELECT c.oid, c.relkind::text, c.relpersistence = 'u' FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2",
            &[(&schema, Type::TEXT), (&name, Type::TEXT)],
        )
        .await?;
    let Some(found) = found else {
        return Ok(Existing::Nothing);
    };
    let (oid, kind): (u32, String) = (found.get(0), found.get(1));
    match kind.as_str() {
        "r" | "p" => {}
        "v" => return Ok(Existing::Other("view")),
        "m" => return Ok(Existing::Other("materialized view")),
        "f" => return Ok(Existing::Other("foreign table")),
        "S" => return Ok(Existing::Other("sequence")),
        "i" | "I" => return Ok(Existing::Other("index")),
        _ => return Ok(Existing::Other("relation that is no table")),
    }
    let of_table = &[(&oid as &(dyn ToSql + Sync), Type::OID)];
    let empty = format!("SELECT NOT EXISTS (SELECT FROM {})", table(schema, name));
    let (columns, unique, foreign, triggers, shared, is_empty) = tokio::try_join!(
        client.query_typed(COLUMNS, of_table),
        client.query_typed(UNIQUE, of_table),
        client.query_typed(FOREIGN, of_table),
        client.query_typed(TRIGGERS, of_table),
        client.query_typed(SHARED, of_table),
        client.query_typed_one(&empty, &[]),
    )?;
    let texts = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get(0)).collect();
    Ok(Existing::Table(Box::new(TableFacts {
        oid,
        columns: columns
            .iter()
            .map(|row| ColumnFacts {
                name: row.get(0),
                shown: row.get(1),
                type_name: row.get(2),
                is_enum: row.get(3),
                modifier: row.get(4),
                not_null: row.get(5),
                fills_itself: row.get(6),
                generated: row.get(7),
                deterministic: row.get(8),
                number: row.get(9),
            })
            .collect(),
        unique: unique.iter().map(Unique::from).collect(),
        foreign: texts(foreign),
        triggers: texts(triggers),
        shared: texts(shared),
        is_empty: is_empty.get(0),
        unlogged: found.get(2),
    })))
}

impl TableFacts {
    /// How the mapping fits, or everything that does not.
    pub(crate) fn check_existing(&self, mapping: &MappingPlan) -> Result<TargetTable, Vec<String>> {
        let mut wrong = Vec::new();
        let mut columns = Vec::with_capacity(mapping.columns.len());
        for (n, plan) in mapping.columns.iter().enumerate() {
            let Some(found) = self.columns.iter().find(|column| column.name == plan.name) else {
                wrong.push(format!("the column '{}' is missing", plan.name));
                continue;
            };
            if found.generated {
                wrong.push(format!(
                    "the column '{}' is generated by the database, so no client can fill it",
                    plan.name
                ));
            }
            match found.takes(plan.kind, n == mapping.key) {
                Ok(target) => columns.push(target),
                Err(why) => wrong.push(format!(
                    "the column '{}' is {}, and should be {}{why}",
                    plan.name,
                    found.shown,
                    sql_type(plan.kind)
                )),
            }
        }
        let key = &mapping.columns[mapping.key].name;
        if self.columns.iter().any(|column| column.name == *key) {
            wrong.extend(key_fault(&self.unique, &mapping.into, key));
        }
        for column in &self.columns {
            let mapped = mapping.column_names().any(|name| name == column.name);
            if !mapped && column.not_null && !column.fills_itself && !column.generated {
                wrong.push(format!(
                    "the column '{}' is NOT NULL without a default, and the mapping does not fill it",
                    column.name
                ));
            }
        }
        for foreign in &self.foreign {
            wrong.push(format!(
                "the foreign key {foreign} would change rows that the log has not changed; make it NO ACTION"
            ));
        }
        wrong.extend(self.shared.iter().cloned());
        if self.unlogged {
            wrong.push(
                "it is UNLOGGED: a crash of the server would empty it while the position stays"
                    .to_owned(),
            );
        }
        if wrong.is_empty() {
            Ok(TargetTable {
                has_more: self.columns.len() > columns.len(),
                columns,
            })
        } else {
            Err(wrong)
        }
    }

    pub(crate) fn oid(&self) -> u32 {
        self.oid
    }

    pub(crate) fn column_names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    pub(crate) fn shape(&self, mapping: &MappingPlan) -> Shape {
        let mapped = |name: &str| mapping.column_names().any(|column| column == name);
        let columns = self.columns.iter().filter(|column| mapped(&column.name));
        let types = columns
            .clone()
            .map(|column| (column.name.clone(), column.shown.clone()));
        let numbers = columns.map(|column| (column.name.clone(), column.number));
        Shape {
            types: types.collect(),
            numbers: Numbers {
                table: self.oid,
                columns: numbers.collect(),
            },
        }
    }

    /// The columns that are of another type than in a mapping.
    pub(crate) fn unlike(&self, mapping: &MappingPlan) -> Vec<String> {
        let mut wrong = Vec::new();
        for (n, plan) in mapping.columns.iter().enumerate() {
            let found = self.columns.iter().find(|column| column.name == plan.name);
            if let Some(found) =
                found.filter(|found| found.takes(plan.kind, n == mapping.key).is_err())
            {
                wrong.push(format!(
                    "the column '{}' is {}, and {} in the mapping",
                    plan.name,
                    found.shown,
                    sql_type(plan.kind)
                ));
            }
        }
        wrong
    }
}

impl ColumnFacts {
    fn takes(&self, kind: ColumnType, is_key: bool) -> Result<TargetColumn, &'static str> {
        if is_key && !self.deterministic {
            return Err(" with a collation under which different texts are never equal");
        }
        let plain = Ok(TargetColumn::default());
        let limited = |limit| {
            Ok(TargetColumn {
                limit,
                ..TargetColumn::default()
            })
        };
        match (kind, self.type_name.as_str()) {
            (ColumnType::Text, "text")
            | (ColumnType::Integer, "int8" | "int4" | "int2")
            | (ColumnType::Real, "float8")
            | (ColumnType::Boolean, "bool")
            | (ColumnType::Json, "jsonb" | "json")
            | (ColumnType::Blob, "bytea")
            | (ColumnType::Uuid, "uuid")
            | (ColumnType::Date, "date") => plain,
            (ColumnType::Text, "varchar") => match self.modifier {
                ..4 => plain,
                modifier => limited(Limit::Characters((modifier - 4) as usize)),
            },
            (ColumnType::Text, _) if self.is_enum && !is_key => Ok(TargetColumn {
                cast: Some(self.shown.clone()),
                limit: Limit::None,
            }),
            (ColumnType::Numeric, "numeric") => match self.modifier {
                ..4 => plain,
                modifier => numeric_limit(modifier - 4).map_or(
                    Err(" with a number of digits behind the point that is not negative"),
                    limited,
                ),
            },
            (ColumnType::Timestamp, "timestamptz" | "timestamp") => match self.modifier {
                -1 | 6.. => plain,
                _ => Err(", because it would round to less than microseconds"),
            },
            (ColumnType::Text, "bpchar") => Err(", because it pads texts with blanks"),
            (ColumnType::Real, "float4") => Err(", because it rounds to 32 bits"),
            (ColumnType::List(element), found) if list_type(element) == found => {
                match (element, self.modifier) {
                    // varchar(n)[] and numeric(p, s)[] would round or refuse without a name.
                    (_, -1) => plain,
                    _ => Err(" without a limit on its elements"),
                }
            }
            _ => Err(""),
        }
    }
}

/// Digits in all, and behind the point, as PostgreSQL packs them.
fn numeric_limit(packed: i32) -> Option<Limit> {
    let all = (packed >> 16) & 0xffff;
    // Eleven bits with a sign since version 15; a scale below 0 rounds whole numbers.
    let fraction = ((packed & 0x7ff) ^ 1024) - 1024;
    Some(Limit::Digits {
        all: usize::try_from(all).ok()?,
        fraction: usize::try_from(fraction).ok()?,
    })
}

const fn list_type(element: Element) -> &'static str {
    match element {
        Element::Text => "_text",
        Element::Integer => "_int8",
        Element::Real => "_float8",
        Element::Boolean => "_bool",
        Element::Numeric => "_numeric",
        Element::Timestamp => "_timestamptz",
        Element::Date => "_date",
        Element::Uuid => "_uuid",
    }
}

/// Names that PostgreSQL would cut or cannot have as columns.
pub(crate) fn bad_names(mapping: &MappingPlan) -> Vec<String> {
    const SYSTEM: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];
    let mut wrong = Vec::new();
    for name in mapping.column_names().chain([mapping.into.as_str()]) {
        if name.len() > IDENTIFIER_BYTES_MAX {
            wrong.push(format!(
                "the name {} has {} bytes, and PostgreSQL's names have at most {}; choose a shorter one",
                quote(name),
                name.len(),
                IDENTIFIER_BYTES_MAX
            ));
        }
    }
    for name in mapping.column_names().filter(|name| SYSTEM.contains(name)) {
        wrong.push(format!(
            "'{name}' is a column that every table of PostgreSQL has by itself; choose another name"
        ));
    }
    wrong
}

#[cfg(test)]
mod tests;

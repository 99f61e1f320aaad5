//! A kind of store, as everything outside its package knows it. The packages of `crates/stores` have
//! one constant each, `KIND`; no other code distinguishes kinds.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use onelog_mapping::{Cell, DefinitionError, FieldRule, MappingRules, Object, Plan, unknown};
use serde_json::{Map, Value};

use crate::address::{Address, one_of};
use crate::server_address::URL;
use crate::store::{Store, StoreError, StoreReader};

pub trait StoreKind: fmt::Debug + Send + Sync {
    /// The kind's name, which definitions keep, and what it takes of a mapping.
    fn rules(&self) -> &'static MappingRules;

    /// How addresses that lead to such a store begin, the usual one first.
    fn schemes(&self) -> &'static [&'static str];

    /// The fields of a sink's definition that belong to this kind. MUST NOT be those of every kind:
    /// `name`, `kind`, `mappings` and the like, see [`SinkDefinition`](crate::SinkDefinition).
    fn fields(&self) -> &'static [FieldRule];

    /// A definition of such a sink, which documents show. It MUST follow the table `shop.orders`, and
    /// SHOULD have what is special to this kind. A test sends it to a server: its name MUST NOT be that
    /// of another kind's example, and a path in it MUST be below `/var/lib/onelog`, which the test
    /// replaces as it does the host of an `url`.
    fn example(&self) -> Value;

    /// The field that names a part of the store which has tables of its own, such as a schema. An
    /// audit names a table of it as `part.table`.
    fn part(&self) -> Option<&'static str> {
        None
    }

    /// Whether a store is of one machine, so that the same address leads to another one from any other:
    /// its sink waits for the node that it names, and runs on no other.
    fn is_on_one_machine(&self) -> bool {
        false
    }

    /// Reads these fields. MUST NOT touch the store. Unknown fields are refused by the caller.
    fn target(&self, definition: &Object<'_>) -> Result<Arc<dyn Target>, DefinitionError>;

    /// The fields of a definition that an address replaces, on the command line and in audits.
    fn fields_of(&self, address: &str) -> Map<String, Value> {
        Map::from_iter([(URL.name.to_owned(), address.into())])
    }
}

/// One store of a kind: where it is, and how it is opened.
pub trait Target: Any + fmt::Debug + Send + Sync {
    fn kind(&self) -> &'static dyn StoreKind;

    /// The address, secrets included, where the store has one.
    fn address(&self) -> Option<&Address>;

    /// Where the store is, in messages and statuses. MUST NOT contain secrets.
    fn place(&self) -> String;

    /// The fields that [`StoreKind::target`] reads, without secrets or as they were written. With
    /// secrets they MUST make an equal target again: definitions are stored in this form.
    fn fields(&self, secrets: bool) -> Map<String, Value>;

    /// Whether both lead to one store, as far as their texts show. The store itself knows the owner
    /// of each of its tables.
    fn is_same_store(&self, other: &dyn Target) -> bool;

    /// Why two sinks cannot write by these two at all, whatever their tables: the field at fault of this
    /// one, and what to do.
    fn excludes(&self, _other: &dyn Target) -> Option<(&'static str, String)> {
        None
    }

    /// Why a sink of this store refuses a cell, which others may have written into the store all the
    /// same.
    fn unwritable(&self, _cell: &Cell) -> Option<String> {
        None
    }

    /// What is wrong with the place, as far as it shows without connecting.
    fn check_place(&self) -> Result<(), String>;

    /// Opens the store for the sink of this name. MUST NOT change rows, and MAY create bookkeeping. An
    /// error that can pass, such as a lost connection, MUST be [`StoreError::Unavailable`]; that the
    /// store answers and cannot be written now, as during a failover, [`StoreError::NotWritable`].
    fn open(&self, sink: &str, log_id: &str, plan: Arc<Plan>)
    -> Result<Box<dyn Store>, StoreError>;

    /// Opens the tables of a plan for reading alone, as they are and with any owner. The
    /// snapshot's position is [`Position::ZERO`](onelog_record::Position::ZERO) and means nothing.
    fn open_reader(&self, plan: &Arc<Plan>) -> Result<Box<dyn StoreReader>, StoreError>;

    /// As [`Target::open_reader`], where a sink of this target would write: an address may lead to
    /// other servers as well.
    fn open_reader_where_written(
        &self,
        plan: &Arc<Plan>,
    ) -> Result<Box<dyn StoreReader>, StoreError> {
        self.open_reader(plan)
    }

    /// How many rows the table of this name has, whatever its columns are: all of them go where it is
    /// made anew. `None`: there is no such table, or the store finds rows by their keys alone.
    fn count_rows(&self, _into: &str) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// What users have added to a table that onelog made (columns, indexes, triggers) and a backfill by
    /// this mapping drops, because a new table takes its place.
    fn lost(&self, _plan: &Plan, _mapping: usize) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// Fails as a backfill of the sink of this name would, where it would not take a mapping's table as
    /// it is and that shows without writing: [`StoreError::SchemaMismatch`] or [`StoreError::NotOwner`].
    fn check_backfill(&self, _sink: &str, _plan: &Plan, _mapping: usize) -> Result<(), StoreError> {
        Ok(())
    }

    /// The id of the log that the sink of this name follows in the store, by which a takeover for the
    /// log `log_id` is refused; as [`Store::followed`](crate::Store::followed), without writing.
    /// `None`: the store does not know the sink, or says nothing without writing.
    fn followed_log(&self, _sink: &str, _log_id: &str) -> Result<Option<String>, StoreError> {
        Ok(None)
    }
}

impl dyn StoreKind {
    /// The name in a definition's `kind`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.rules().kind
    }

    /// The store that an address leads to, with more fields of this kind.
    pub fn target_at(
        &self,
        address: &str,
        more: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<Arc<dyn Target>, DefinitionError> {
        let mut fields = self.fields_of(address);
        fields.extend(more);
        self.target(&Object::new("", &fields.into())?)
    }
}

impl dyn Target {
    /// The same store with one field changed; `None` where the kind has no such field.
    #[must_use]
    pub fn with(&self, field: &str, value: Value) -> Option<Result<Arc<Self>, DefinitionError>> {
        let mut known = self.kind().fields().iter();
        known.find(|rule| rule.name == field)?;
        let mut fields = self.fields(true);
        fields.insert(field.to_owned(), value);
        let fields = Value::Object(fields);
        Some(Object::new("", &fields).and_then(|object| self.kind().target(&object)))
    }
}

impl PartialEq for dyn Target {
    fn eq(&self, other: &Self) -> bool {
        self.kind().name() == other.kind().name() && self.fields(true) == other.fields(true)
    }
}

/// The kinds of store that a program knows.
#[derive(Clone, Copy, Debug)]
pub struct Kinds(&'static [&'static dyn StoreKind]);

impl Kinds {
    #[must_use]
    pub const fn new(all: &'static [&'static dyn StoreKind]) -> Self {
        Self(all)
    }

    pub fn iter(self) -> impl Iterator<Item = &'static dyn StoreKind> + Clone {
        self.0.iter().copied()
    }

    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(<dyn StoreKind>::name).collect()
    }

    #[must_use]
    pub fn find(self, name: &str) -> Option<&'static dyn StoreKind> {
        self.iter().find(|kind| kind.name() == name)
    }

    /// How addresses begin, for people.
    #[must_use]
    pub fn addresses(self) -> String {
        let shown = self.iter().filter_map(|kind| {
            let (name, scheme) = (kind.name(), kind.schemes().first()?);
            Some(match name == *scheme {
                true => format!("{scheme}://"),
                false => format!("{scheme}:// ({name})"),
            })
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// The kind that a definition names.
    pub fn of(self, definition: &Object<'_>) -> Result<&'static dyn StoreKind, DefinitionError> {
        let name = definition.text("kind")?;
        self.find(name).ok_or_else(|| {
            DefinitionError::new("kind", unknown("kind of store", name, self.names()))
        })
    }

    /// The store that an address leads to.
    pub fn target(self, address: &str) -> Result<Arc<dyn Target>, DefinitionError> {
        let scheme = address.split("://").next().unwrap_or("");
        let found = self.iter().find(|kind| kind.schemes().contains(&scheme));
        let Some(kind) = found else {
            let schemes = self.iter().flat_map(|kind| kind.schemes());
            let known: Vec<String> = schemes.map(|scheme| format!("{scheme}://")).collect();
            return Err(DefinitionError::new(
                "the address",
                format!("it must start with {}", one_of(&known)),
            ));
        };
        kind.target_at(address, None)
    }
}

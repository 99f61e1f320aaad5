//! What is checked of a definition before its sink is made or changed: alone, with its store, and
//! together with others that are to be made.

use std::sync::Arc;

use onelog_mapping::DefinitionError;
use onelog_record::TableDefinition;
use onelog_store::{Kinds, SinkDefinition, StoreError, URL};

use crate::error::SinkError;
use crate::open::{check_target, open_store, plan_of, plan_with};
use crate::overlap::check_overlap;
use crate::progress::Place;
use crate::runner::log_id;
use crate::sinks::{Inner, Sinks};

/// Segments of the API's paths in the place of names, and those that clients take for a folder.
const RESERVED_NAMES: [&str; 5] = ["dry-run", "try", "forget", ".", ".."];

impl Sinks {
    /// Everything that shows of definitions without their stores: their texts, the environment
    /// variables in them, the tables that they follow (those of the log and `tables`, which are to be
    /// made), and whether two of them write to one table. Answers the number of the one at fault.
    pub fn check_ahead(
        &self,
        definitions: &[&SinkDefinition],
        tables: &[TableDefinition],
    ) -> Result<(), (usize, SinkError)> {
        for (number, definition) in definitions.iter().enumerate() {
            let at = |error: SinkError| (number, error);
            self.check_one_ahead(definition, tables).map_err(at)?;
            for other in &definitions[..number] {
                check_overlap(definition, other).map_err(|error| at(error.into()))?;
            }
        }
        Ok(())
    }

    fn check_one_ahead(
        &self,
        definition: &SinkDefinition,
        tables: &[TableDefinition],
    ) -> Result<(), SinkError> {
        let inner = &self.inner;
        if let Ok(known) = inner.find(&definition.name) {
            let mut known = known.definition;
            known.paused = definition.paused;
            // It goes on as it is, whatever its own thread says of it.
            if known == *definition {
                return Ok(());
            }
        }
        check_text(inner.kinds, definition)?;
        inner.check_node(definition)?;
        if inner.find(&definition.name).is_err() {
            check_name(&definition.name)?;
        }
        if let Some(address) = definition.target.address() {
            let resolved = address.resolve();
            resolved.map_err(|error| DefinitionError::new(URL.name, error.what))?;
        }
        plan_with(&inner.node, definition, tables)?;
        Ok(())
    }
}

impl Inner {
    /// Without a node such a sink would move with the leadership, and backfill another store on
    /// each machine.
    fn check_node(&self, definition: &SinkDefinition) -> Result<(), DefinitionError> {
        let kind = definition.target.kind();
        let moves = definition.run_on.is_none() && self.node.cluster().is_some();
        match moves && kind.is_on_one_machine() {
            false => Ok(()),
            true => Err(DefinitionError::new(
                "run_on",
                format!(
                    "in a cluster a sink of kind '{}' needs the number of a node, because its store is on that node's machine",
                    kind.name()
                ),
            )),
        }
    }

    /// Everything that can be checked before a sink is defined, its store included; it may replace
    /// the sink of a name.
    pub(crate) fn check(
        &self,
        definition: &SinkDefinition,
        replaced: Option<&str>,
    ) -> Result<(), SinkError> {
        check_text(self.kinds, definition)?;
        self.check_node(definition)?;
        // One that an earlier version has made can still be changed and deleted.
        if replaced.is_none() {
            check_name(&definition.name)?;
        }
        let plan = Arc::new(plan_of(&self.node, definition)?);
        self.check_others(definition, replaced)?;
        let is_here = matches!(self.place_of(definition), Place::Here(_));
        if definition.target.kind().is_on_one_machine() && !is_here {
            // Here the address leads to another store, or makes one.
            return Ok(());
        }
        let ours = log_id(&self.node);
        let mut store = open_store(definition, &plan, &ours)
            .map_err(|error| of_definition(definition, error))?;
        check_target(definition, &plan, &ours, store.as_mut())
            .map_err(|error| of_definition(definition, error))?;
        match store.followed()?.map(|found| found.log_id) {
            Some(found) if found != ours && definition.take_from_log.as_ref() != Some(&found) => {
                Err(StoreError::OtherLog { ours, found }.into())
            }
            _ => Ok(()),
        }
    }
}

/// A fault of a store that a change of the definition mends, with its place there.
fn of_definition(definition: &SinkDefinition, error: StoreError) -> SinkError {
    let place = match &error {
        StoreError::NoSuchPlace { field, .. } => (*field).to_owned(),
        StoreError::SchemaMismatch { into, .. } | StoreError::NotOwner { into, .. } => {
            let mut mappings = definition.mappings.iter();
            match mappings.position(|mapping| mapping.into == *into) {
                Some(number) => format!("mappings[{number}].into"),
                None => "mappings".to_owned(),
            }
        }
        _ => return error.into(),
    };
    DefinitionError::new(place, error.of_new_definition().to_string()).into()
}

/// Refuses names that a new sink cannot have.
fn check_name(name: &str) -> Result<(), SinkError> {
    match RESERVED_NAMES.contains(&name) {
        true => Err(SinkError::Reserved {
            name: name.to_owned(),
        }),
        false => Ok(()),
    }
}

/// A definition that was put together by a program passes the same checks as one that was read.
fn check_text(kinds: Kinds, definition: &SinkDefinition) -> Result<(), DefinitionError> {
    SinkDefinition::from_json(kinds, &definition.to_stored()).map(|_| ())
}

//! Checks of definitions that are to be made together, before anything is made.

use onelog_mapping::DefinitionError;
use onelog_record::TableDefinition;
use onelog_store::{SinkDefinition, URL};

use crate::error::SinkError;
use crate::open::plan_with;
use crate::overlap::check_overlap;
use crate::sinks::{Sinks, check_text, is_reserved};

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
        if is_reserved(&definition.name) && inner.find(&definition.name).is_err() {
            return Err(SinkError::Reserved {
                name: definition.name.clone(),
            });
        }
        if let Some(address) = definition.target.address() {
            let resolved = address.resolve();
            resolved.map_err(|error| DefinitionError::new(URL.name, error.what))?;
        }
        plan_with(&inner.node, definition, tables)?;
        Ok(())
    }
}

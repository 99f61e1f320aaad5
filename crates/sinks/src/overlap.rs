//! Two sinks must not write to one table of one store, nor to one store by ways that damage it.

use onelog_mapping::DefinitionError;
use onelog_store::SinkDefinition;

/// Checks that two sinks do not write to one table, and do not damage each other's store.
pub(crate) fn check_overlap(
    new: &SinkDefinition,
    other: &SinkDefinition,
) -> Result<(), DefinitionError> {
    if let Some((field, why)) = new.target.excludes(other.target.as_ref()) {
        let what = format!("the sink '{}' writes here already: {why}", other.name);
        return Err(DefinitionError::new(field, what));
    }
    if !new.target.is_same_store(other.target.as_ref()) {
        return Ok(());
    }
    for (n, mapping) in new.mappings.iter().enumerate() {
        let rules = new.target.kind().rules();
        let mut known = other.mappings.iter();
        let taken = known.find(|known| rules.is_same_table(&known.into, &mapping.into));
        if let Some(taken) = taken {
            return Err(DefinitionError::new(
                format!("mappings[{n}].into"),
                format!(
                    "the sink '{}' writes to '{}' in this store already{}; choose another name or another store",
                    other.name,
                    taken.into,
                    match taken.into == mapping.into {
                        true => "",
                        false => ", and names of tables are compared without regard to case",
                    }
                ),
            ));
        }
    }
    Ok(())
}

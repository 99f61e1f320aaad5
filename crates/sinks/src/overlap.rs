//! Two sinks must not write to one table of one store.

use onelog_mapping::DefinitionError;
use onelog_store::SinkDefinition;

/// Checks that two sinks do not write to one table.
pub(crate) fn check_overlap(
    new: &SinkDefinition,
    other: &SinkDefinition,
) -> Result<(), DefinitionError> {
    if !new.target.is_same_store(other.target.as_ref()) {
        return Ok(());
    }
    for (n, mapping) in new.mappings.iter().enumerate() {
        let taken = other
            .mappings
            .iter()
            .any(|known| known.into.eq_ignore_ascii_case(&mapping.into));
        if taken {
            return Err(DefinitionError::new(
                format!("mappings[{n}].into"),
                format!(
                    "the sink '{}' writes to '{}' in this store already; choose another name or another store",
                    other.name, mapping.into
                ),
            ));
        }
    }
    Ok(())
}

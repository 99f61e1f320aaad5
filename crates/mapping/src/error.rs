//! What is wrong with a definition, and where.

use onelog_record::{Quoted, nearest_name};

/// A definition that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct DefinitionError {
    /// The place in the definition, for example `mappings[0].columns.total.type`.
    pub place: String,
    /// What is wrong there, and what to do.
    pub what: String,
}

impl DefinitionError {
    #[must_use]
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }
}

/// "unknown …; did you mean …?"
#[must_use]
pub fn unknown<'n>(
    what: &str,
    wanted: &str,
    known: impl IntoIterator<Item = &'n str> + Clone,
) -> String {
    match nearest_name(wanted, known.clone()) {
        Some(name) => format!(
            "unknown {what} '{}'; did you mean '{name}'?",
            Quoted(wanted)
        ),
        None => {
            let known: Vec<&str> = known.into_iter().collect();
            let known = known.join(", ");
            format!("unknown {what} '{}'; known are: {known}", Quoted(wanted))
        }
    }
}

//! What is said of a table that does not fit its mapping, with what helps.

use std::fmt;

use onelog_mapping::{EXISTING, MappingPlan};

use crate::store::StoreError;

/// How many columns a message lists.
const COLUMNS_SHOWN_MAX: usize = 64;

/// What helps where a table does not fit its mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The text of what does not fit says it.
    Said,
    /// onelog made the table and can make it anew.
    Rebuild,
    /// The table is the user's own.
    Change,
    /// The table is to be a sink's by a definition that is not in force yet.
    Define,
    /// The table is only read, by whatever names it.
    NameAnother,
}

impl Remedy {
    /// Of a table that is not as the mapping has it.
    #[must_use]
    pub fn of(mapping: &MappingPlan) -> Self {
        match mapping.options.flag(EXISTING) {
            true => Self::Change,
            false => Self::Rebuild,
        }
    }
}

impl fmt::Display for Remedy {
    /// Goes on behind what does not fit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Said => "",
            Self::Rebuild => "; have it made anew from the log: onelog sinks rebuild",
            Self::Change => {
                "; change the table, then have it backfilled again from the log (onelog sinks rebuild), or change the mapping"
            }
            Self::Define => {
                "; change the table, then send the definition again, or change the mapping"
            }
            Self::NameAnother => "; name what is there, or change the table",
        })
    }
}

impl StoreError {
    pub fn mismatch(mapping: &MappingPlan, what: impl Into<String>, remedy: Remedy) -> Self {
        Self::SchemaMismatch {
            into: mapping.into.clone(),
            what: what.into(),
            remedy,
        }
    }

    /// The same where the definition is refused for it: there is no sink by it that could be rebuilt.
    #[must_use]
    pub fn of_new_definition(mut self) -> Self {
        if let Self::SchemaMismatch { remedy, .. } = &mut self
            && matches!(remedy, Remedy::Change | Remedy::Rebuild)
        {
            *remedy = Remedy::Define;
        }
        self
    }

    /// A table of a sink that was there before.
    pub fn not_there(mapping: &MappingPlan) -> Self {
        let what = "it is not there: it was dropped or renamed. Give it its name back, or make it anew from the log: onelog sinks rebuild";
        Self::mismatch(mapping, what, Remedy::Said)
    }

    /// Columns that a table is to be read by and does not have, of those that it has. `None`: it has
    /// them all.
    pub fn without_columns(plan: &MappingPlan, found: &[String], folds_case: bool) -> Option<Self> {
        let is_there = |name: &str| match folds_case {
            true => found
                .iter()
                .any(|known| known.to_lowercase() == name.to_lowercase()),
            false => found.iter().any(|known| known == name),
        };
        let missing = plan.column_names().filter(|name| !is_there(name));
        let missing: Vec<String> = missing.map(|name| format!("'{name}'")).collect();
        let are_there = match found.len() {
            0..=COLUMNS_SHOWN_MAX => found.join(", "),
            all => format!(
                "{} and {} more",
                found[..COLUMNS_SHOWN_MAX].join(", "),
                all - COLUMNS_SHOWN_MAX
            ),
        };
        (!missing.is_empty()).then(|| {
            let what = format!(
                "it has no column {}; its columns are {are_there}",
                missing.join(", ")
            );
            Self::mismatch(plan, what, Remedy::NameAnother)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mismatch_names_what_helps_and_no_more() {
        let error = |remedy| {
            let into = "orders".to_owned();
            let what = "the column 'x' is missing".to_owned();
            StoreError::SchemaMismatch { into, what, remedy }
        };
        let said = |remedy| error(remedy).to_string();
        let rebuild = said(Remedy::Rebuild);
        assert!(rebuild.ends_with("onelog sinks rebuild"), "{rebuild}");
        let change = said(Remedy::Change);
        assert!(change.contains("change the table, then"), "{change}");
        // A definition that is refused has no sink yet.
        for remedy in [Remedy::Rebuild, Remedy::Change] {
            let refused = error(remedy).of_new_definition().to_string();
            assert!(refused.contains("send the definition again"), "{refused}");
            assert!(!refused.contains("sinks"), "{refused}");
        }
        let said_already = error(Remedy::Said).of_new_definition().to_string();
        assert_eq!(said_already, said(Remedy::Said));
        // What is only read may have no sink.
        let read = said(Remedy::NameAnother);
        assert!(!read.contains("sink"), "{read}");
        assert!(said(Remedy::Said).ends_with("is missing"));
    }
}

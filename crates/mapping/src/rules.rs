//! What a kind of store takes of a mapping.

use crate::{ColumnType, DefinitionError, OptionRule, Plan};

/// What one kind of store takes of a mapping: a constant of that store.
#[derive(Debug)]
pub struct MappingRules {
    /// The kind's name in a definition's `kind`.
    pub kind: &'static str,
    /// Whether the store has columns of a type.
    pub has_type: fn(ColumnType) -> bool,
    /// Whether a mapping can have a full-text index.
    pub full_text: bool,
    /// The fields of a mapping that this kind takes beyond those of every kind.
    pub options: &'static [OptionRule],
    /// How a row's key is kept.
    pub keys: KeyForm,
    /// How a mapping without columns is kept.
    pub rows: RowForm,
    /// What only this store demands of the mappings of one sink.
    pub check: fn(&Plan) -> Result<(), DefinitionError>,
}

/// How a store keeps the key of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// In the key's column, in the column's type.
    Column,
    /// As a name that the template makes of the record's key, `into:{$key}` by default; the key's
    /// column is one more cell.
    Name,
}

/// What a store keeps of a mapping without columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowForm {
    /// A row with a column for the key and one for the document.
    Columns,
    /// The document itself, under the key.
    Document,
}

impl MappingRules {
    /// The fields of a mapping that not every kind takes.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &'static str> {
        let full_text = self.full_text.then_some(FULL_TEXT);
        full_text
            .into_iter()
            .chain(self.options.iter().map(|option| option.name))
    }
}

pub(crate) const FULL_TEXT: &str = "full_text";

/// A plan that any store takes.
///
/// # Errors
/// Never; it is the [`MappingRules::check`] of stores that demand nothing more.
pub const fn no_further_check(_: &Plan) -> Result<(), DefinitionError> {
    Ok(())
}

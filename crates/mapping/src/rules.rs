//! What a kind of store takes of a mapping.

use crate::{ColumnType, DefinitionError, FieldRule, FieldValue, MappingOptions, Plan};

/// What one kind of store takes of a mapping: a constant of that store.
#[derive(Debug)]
pub struct MappingRules {
    /// The kind's name in a definition's `kind`.
    pub kind: &'static str,
    /// Whether the store has columns of a type.
    pub has_type: fn(ColumnType) -> bool,
    /// Whether a mapping can have a full-text index.
    pub full_text: bool,
    /// Whether two tables whose names differ in nothing but case can be one.
    pub folds_names: bool,
    /// The fields of a mapping that this kind takes beyond those of every kind.
    pub options: &'static [FieldRule],
    /// How a row's key is kept.
    pub keys: KeyForm,
    /// How a mapping without columns is kept.
    pub rows: RowForm,
    /// The option, and its value, by which a row has its columns one by one where it is a document
    /// otherwise.
    pub columns_by: Option<(&'static str, &'static str)>,
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
    /// Whether a row has its columns one by one.
    #[must_use]
    pub fn has_columns(&self, options: &MappingOptions) -> bool {
        let by = |(option, value)| options.choice(option) == Some(value);
        self.rows == RowForm::Columns || self.columns_by.is_some_and(by)
    }

    /// Whether both names lead to one table.
    #[must_use]
    pub fn is_same_table(&self, one: &str, other: &str) -> bool {
        match self.folds_names {
            true => one.eq_ignore_ascii_case(other),
            false => one == other,
        }
    }

    /// The fields of a mapping that not every kind takes.
    pub fn fields(&self) -> impl Iterator<Item = FieldRule> {
        let full_text = self.full_text.then_some(FULL_TEXT_RULE);
        full_text.into_iter().chain(self.options.iter().copied())
    }
}

pub(crate) const FULL_TEXT: &str = "full_text";
const FULL_TEXT_RULE: FieldRule = FieldRule {
    name: FULL_TEXT,
    help: "columns with a full-text index",
    value: FieldValue::Texts,
};

/// A plan that any store takes.
///
/// # Errors
/// Never; it is the [`MappingRules::check`] of stores that demand nothing more.
pub const fn no_further_check(_: &Plan) -> Result<(), DefinitionError> {
    Ok(())
}

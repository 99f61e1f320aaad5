//! What the validator needs of the world: the applied state and the rules of the tables.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use onelog_record::{
    CommitRequest, Json, KeyRange, Offset, Position, Refusal, TableDefinition, TableId, ValueKind,
};

/// The last write of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    pub version: Offset,
    /// The value; `None` is a remembered delete.
    pub value: Option<Bytes>,
}

/// Whether a range was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Nothing,
    /// A key that was, and the version that did it.
    At(Bytes, Offset),
    /// More steps are needed to know.
    OutOfSteps,
}

impl From<Option<(Bytes, Offset)>> for Written {
    fn from(found: Option<(Bytes, Offset)>) -> Self {
        found.map_or(Self::Nothing, |(key, version)| Self::At(key, version))
    }
}

/// The applied state could not be read. No decision can be made: the node stops.
#[derive(Debug, thiserror::Error)]
#[error("the applied state cannot be read, so nothing can be committed: {0}")]
pub struct ViewError(#[source] pub Box<dyn Error + Send + Sync>);

/// The newest committed and applied state, as the validator needs it.
///
/// ```text
///            floor               position            next
///  ────────────┼────────────────────┼──────────────────┼
///   deletes may be   every write and    in flight: known
///     forgotten    delete is known here  to the validator only
/// ```
pub trait View {
    /// The last write of a key. `None`: never there, or deleted below [`View::floor`].
    fn newest(&self, table: TableId, key: &[u8]) -> Result<Option<Latest>, ViewError>;

    /// A key of the range that was written or deleted at or after `since`, with its last version.
    /// MUST find one if there is one, `since` is at or above [`View::floor`] and `steps` suffice.
    /// Each version or block of versions that is looked at MUST take one off `steps`.
    fn written_since(
        &self,
        range: &KeyRange,
        since: Position,
        steps: &mut usize,
    ) -> Result<Written, ViewError>;

    /// Deletes at or above this position are all remembered.
    fn floor(&self) -> Position;

    /// Everything below is applied here. MUST be the end of a whole entry.
    fn position(&self) -> Position;
}

/// Why a value does not pass a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaFault {
    /// What is wrong with it, and where.
    Breaks(String),
    /// More steps are needed to know.
    OutOfSteps,
}

/// A compiled JSON Schema.
pub trait Schema: Send + Sync + Debug {
    /// Says what is wrong with a value, if anything is. MUST take off `steps` what it took, about one
    /// for each subschema that looks at a value, and end when there are none.
    fn check(&self, value: &Json<'_>, steps: &mut usize) -> Result<(), SchemaFault>;

    /// Does beforehand whatever the first check would do for all: the thread that decides has no time
    /// for it.
    fn prepare(&self) {}
}

/// The rules of one table.
#[derive(Clone, Debug)]
pub struct TableRules {
    pub definition: Arc<TableDefinition>,
    /// Its schema, compiled.
    pub schema: Option<Arc<dyn Schema>>,
}

impl TableRules {
    /// Whether they look into documents that are put.
    pub(crate) fn looks_into(&self) -> bool {
        let rules = self.schema.is_some() || !self.definition.unique.is_empty();
        rules && self.definition.value == ValueKind::Json
    }
}

/// The rules of every table.
pub trait Rules {
    /// The rules of a live table or a system table; `None` for one that is unknown or dropped.
    fn table(&self, table: TableId) -> Option<&TableRules>;

    /// Whether the request may write to system tables what it writes there. MUST refuse whatever
    /// these rules could not take in, once it is in the log. Requests that write to users' tables
    /// alone need not be asked about.
    fn check_system_writes(&self, _request: &CommitRequest) -> Result<(), Refusal> {
        Ok(())
    }

    /// As [`Self::check_system_writes`], for what rests on the request alone and may take long.
    fn check_definitions(&self, _request: &CommitRequest) -> Result<(), Refusal> {
        Ok(())
    }
}

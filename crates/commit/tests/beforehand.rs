//! What rests on a request and the rules of its tables alone is done before the request waits for the
//! thread that decides.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use onelog_commit::{
    Decision, Latest, Prepared, Rules, Schema, SchemaFault, TableRules, Validator,
    ValidatorOptions, View, ViewError, Written,
};
use onelog_record::{
    BodyWriter, CommitRequest, FieldPath, Json, KeyRange, Offset, Operation, Position, Refusal,
    TABLE_TABLES, TableDefinition, TableId, TableKind, TxnId, ValueKind, Write,
};

const NUMBERS: TableId = TableId(1024);

#[derive(Debug, Default)]
struct Counted(AtomicUsize);

impl Schema for Counted {
    fn check(&self, _value: &Json<'_>, _steps: &mut usize) -> Result<(), SchemaFault> {
        Ok(())
    }

    fn prepare(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Tables {
    tables: Vec<TableRules>,
    definitions_checked: Cell<usize>,
}

impl Rules for Tables {
    fn table(&self, table: TableId) -> Option<&TableRules> {
        self.tables
            .iter()
            .find(|rules| rules.definition.id == table)
    }

    fn check_definitions(&self, _request: &CommitRequest) -> Result<(), Refusal> {
        self.definitions_checked
            .set(self.definitions_checked.get() + 1);
        Ok(())
    }
}

fn table(id: TableId, schema: Option<Arc<dyn Schema>>) -> TableRules {
    let definition = TableDefinition {
        id,
        name: format!("t.{id}"),
        kind: TableKind::Keyed,
        value: ValueKind::Json,
        schema: None,
        unique: Vec::new(),
        dropped: false,
    };
    TableRules {
        definition: Arc::new(definition),
        schema,
    }
}

struct Empty;

impl View for Empty {
    fn newest(&self, _table: TableId, _key: &[u8]) -> Result<Option<Latest>, ViewError> {
        Ok(None)
    }

    fn written_since(
        &self,
        _range: &KeyRange,
        _since: Position,
        _steps: &mut usize,
    ) -> Result<Written, ViewError> {
        Ok(Written::Nothing)
    }

    fn floor(&self) -> Position {
        Position::ZERO
    }

    fn position(&self) -> Position {
        Position::ZERO
    }
}

fn request(table: TableId, operation: Operation) -> CommitRequest {
    CommitRequest {
        writes: vec![Write {
            table,
            key: Bytes::from_static(b"k"),
            operation,
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    }
}

#[test]
fn a_schema_is_made_ready_for_an_operation_that_needs_the_document_that_is_there() {
    let schema = Arc::new(Counted::default());
    let tables = Tables {
        tables: vec![table(NUMBERS, Some(Arc::clone(&schema) as Arc<dyn Schema>))],
        definitions_checked: Cell::new(0),
    };
    let add = Operation::Add(FieldPath::parse("/n").unwrap(), 1.into());
    for (operation, expected) in [(Operation::Delete, 0), (add, 1)] {
        let _ = Prepared::of(&request(NUMBERS, operation), &tables);
        assert_eq!(schema.0.load(Ordering::Relaxed), expected);
    }
}

#[test]
fn a_definition_that_was_looked_at_is_not_looked_at_again_by_the_one_who_decides() {
    let tables = Tables {
        tables: vec![table(TABLE_TABLES, None)],
        definitions_checked: Cell::new(0),
    };
    let request = request(TABLE_TABLES, Operation::Put(Bytes::from_static(b"{}")));
    let prepared = Prepared::of(&request, &tables);
    assert_eq!(tables.definitions_checked.get(), 1);
    let mut validator = Validator::new(
        ValidatorOptions::default(),
        Position::ZERO,
        std::iter::empty(),
    );
    for (prepared, expected) in [(&prepared, 1), (&Prepared::default(), 2)] {
        let mut body = BodyWriter::with_prefix(0);
        let decision = validator.decide_prepared(
            &request,
            prepared,
            TxnId::from_bytes([u8::try_from(expected).unwrap(); 16]),
            7,
            Offset(expected as u64),
            &Empty,
            &tables,
            &mut body,
        );
        assert!(matches!(decision, Ok(Decision::Accepted(_))));
        assert_eq!(tables.definitions_checked.get(), expected);
    }
}

//! Turns the writes of a request into records: operations in order, each seeing those before it;
//! only after-images leave.

use bytes::Bytes;
use onelog_record::{
    BODY_BYTES_MAX, BodyWriter, CommitRequest, FieldPath, Json, Offset, Op, Operation,
    OperationFault, Position, Refusal, Subject, TRANSACTION_BYTES_MAX, TableId, TableKind,
    TooLarge, VALUE_BYTES_MAX, ValueKind, Write,
};

use crate::newest::Now;
use crate::operations::{self, FieldOperation};
use crate::prepared::Prepared;
use crate::rejection::Rejection;
use crate::staged::{Staged, StagedWrite};
use crate::unique;
use crate::view::{Rules, TableRules};
use crate::window::Fingerprints;

/// The most bytes of the body that one accepted transaction takes.
pub const TRANSACTION_BODY_BYTES_MAX: usize = BODY_BYTES_MAX / 2;

/// What carrying out the writes of one transaction needs.
pub struct Writer<'a> {
    pub now: Now<'a>,
    pub rules: &'a dyn Rules,
    pub fingerprints: &'a Fingerprints,
    pub staged: &'a mut Staged,
    pub body: &'a mut BodyWriter,
    pub prepared: &'a Prepared,
    /// The offset of the next record of this transaction.
    pub offset: Offset,
}

/// A value that an operation meets, or makes.
#[derive(Default)]
pub struct Image {
    pub value: Option<Bytes>,
    /// Where the transaction in flight ends that it was computed from, or zero.
    pub after: Position,
}

impl Writer<'_> {
    /// Writes all records of the transaction, those of unique fields last.
    pub fn write_all(&mut self, request: &CommitRequest) -> Result<(), Rejection> {
        let body_before = self.body.len();
        let mut total = 0usize;
        let mut any_unique = false;
        for (index, write) in request.writes.iter().enumerate() {
            let rules = self.rules;
            let table = rules.table(write.table).ok_or_else(|| {
                Rejection::now(Refusal::UnknownTable {
                    subject: Subject::Write(index),
                    table: write.table,
                })
            })?;
            any_unique |= !table.definition.unique.is_empty();
            let written = self.write_one(index, write, table)?;
            total += write.key.len() + written + write.header_bytes();
            self.check_total(total, TRANSACTION_BYTES_MAX, "TRANSACTION_BYTES_MAX")?;
        }
        if any_unique {
            unique::write_rows(self, request)?;
        }
        self.check_total(
            self.body.len() - body_before,
            TRANSACTION_BODY_BYTES_MAX,
            "TRANSACTION_BODY_BYTES_MAX",
        )
    }

    fn check_total(&self, is: usize, max: usize, limit: &'static str) -> Result<(), Rejection> {
        if is <= max {
            return Ok(());
        }
        Err(Rejection::after(
            Refusal::TooLarge(TooLarge {
                what: "the transaction, with the values that its operations make,".into(),
                limit: limit.into(),
                is,
                max,
                unit: "bytes".into(),
            }),
            self.now.everything(),
        ))
    }

    /// Carries one write out; answers how long its value is.
    fn write_one(
        &mut self,
        index: usize,
        write: &Write,
        table: &TableRules,
    ) -> Result<usize, Rejection> {
        if table.definition.kind == TableKind::Stream {
            let Operation::Put(value) = &write.operation else {
                return Err(wrong_table(index, "a stream table takes puts only"));
            };
            self.check_json(index, table, value, Position::ZERO)?;
            self.body.record(
                Op::Event,
                write.table,
                &write.key,
                Some(value),
                &write.headers,
            );
            self.offset = Offset(self.offset.0 + 1);
            return Ok(value.len());
        }
        let image = self.carry_out(index, write, table)?;
        let length = image.value.as_ref().map_or(0, Bytes::len);
        let op = if image.value.is_some() {
            Op::Put
        } else {
            Op::Delete
        };
        self.body.record(
            op,
            write.table,
            &write.key,
            image.value.as_deref(),
            &write.headers,
        );
        self.stage(write.table, write.key.clone(), image);
        Ok(length)
    }

    /// Remembers a record that was just written, for the writes behind it and for the overlay.
    pub fn stage(&mut self, table: TableId, key: Bytes, image: Image) {
        let fingerprint = self.fingerprints.of(table, &key);
        self.staged.push(StagedWrite {
            table,
            key,
            value: image.value,
            offset: self.offset,
            fingerprint,
            after: image.after,
        });
        self.offset = Offset(self.offset.0 + 1);
    }

    /// The newest value of a key, this transaction's own writes included.
    pub fn newest(&self, table: TableId, key: &[u8]) -> Result<Image, Rejection> {
        let fingerprint = self.fingerprints.of(table, key);
        if let Some(write) = self.staged.find(table, key, fingerprint) {
            return Ok(Image {
                value: write.value.clone(),
                after: write.after,
            });
        }
        let newest = self.now.newest(table, key)?;
        Ok(Image {
            value: newest.value,
            after: newest.after,
        })
    }

    fn carry_out(
        &self,
        index: usize,
        write: &Write,
        table: &TableRules,
    ) -> Result<Image, Rejection> {
        let is_json = table.definition.value == ValueKind::Json;
        let (path, operation) = match &write.operation {
            Operation::Put(value) => {
                self.check_json(index, table, value, Position::ZERO)?;
                return Ok(Image {
                    value: Some(value.clone()),
                    after: Position::ZERO,
                });
            }
            Operation::Delete => return Ok(Image::default()),
            Operation::AppendBytes(tail) if !is_json => {
                return self.append_bytes(index, write, tail);
            }
            Operation::AppendBytes(_) => {
                return Err(wrong_table(
                    index,
                    "bytes can be appended in a table of bytes only; this one holds JSON",
                ));
            }
            Operation::Add(path, by) => (path, FieldOperation::Add(by)),
            Operation::Min(path, by) => (path, FieldOperation::Min(by)),
            Operation::Max(path, by) => (path, FieldOperation::Max(by)),
            Operation::Append(path, element) => (path, FieldOperation::Append(element)),
        };
        if !is_json {
            return Err(wrong_table(
                index,
                "add, min, max and append need a table of JSON; this one holds bytes",
            ));
        }
        self.change_field(index, write, table, path, operation)
    }

    fn append_bytes(&self, index: usize, write: &Write, tail: &Bytes) -> Result<Image, Rejection> {
        let met = self.newest(write.table, &write.key)?;
        let head = met.value.unwrap_or_default();
        check_value_size(index, head.len() + tail.len(), met.after)?;
        let value = if head.is_empty() {
            tail.clone()
        } else {
            [&head[..], &tail[..]].concat().into()
        };
        Ok(Image {
            value: Some(value),
            after: met.after,
        })
    }

    fn change_field(
        &self,
        index: usize,
        write: &Write,
        table: &TableRules,
        path: &FieldPath,
        operation: FieldOperation<'_>,
    ) -> Result<Image, Rejection> {
        operations::check_nesting(index, path, &operation)
            .map_err(|fault| Rejection::now(fault.into()))?;
        let met = self.newest(write.table, &write.key)?;
        let bad = |fault| Rejection::bad_operation(index, fault, met.after);
        let document = met.value.as_deref().unwrap_or(b"null");
        self.now.work.parse(&self.now, document.len())?;
        let text = operations::apply(document, path, operation).map_err(bad)?;
        check_value_size(index, text.len(), met.after)?;
        self.check_schema(index, table, text.as_bytes(), met.after)?;
        Ok(Image {
            value: Some(text.into()),
            after: met.after,
        })
    }

    /// Checks a value that was given whole, where the table's rules look into it.
    fn check_json(
        &self,
        index: usize,
        table: &TableRules,
        value: &Bytes,
        after: Position,
    ) -> Result<(), Rejection> {
        if !table.looks_into() {
            return Ok(());
        }
        if let Some(put) = self.prepared.put(index) {
            self.now.work.schema(&self.now, put.schema_steps)?;
            let bad =
                |fault: &OperationFault| Rejection::bad_operation(index, fault.clone(), after);
            return put.found.as_ref().copied().map_err(bad);
        }
        self.now.work.parse(&self.now, value.len())?;
        if table.schema.is_some() {
            return self.check_schema(index, table, value, after);
        }
        Json::check(value)
            .map_err(|_| Rejection::bad_operation(index, OperationFault::NotJson, after))
    }

    /// Checks a document against the schema of its table, if that has one.
    fn check_schema(
        &self,
        index: usize,
        table: &TableRules,
        document: &[u8],
        after: Position,
    ) -> Result<(), Rejection> {
        let Some(schema) = &table.schema else {
            return Ok(());
        };
        let bad = |fault| Rejection::bad_operation(index, fault, after);
        let document = Json::parse(document).map_err(|_| bad(OperationFault::NotJson))?;
        let work = self.now.work;
        let checked = work.check_schema(&self.now, &**schema, &document)?;
        checked.map_err(|text| bad(OperationFault::Schema(text)))
    }
}

fn wrong_table(index: usize, text: &'static str) -> Rejection {
    Rejection::bad_operation(
        index,
        OperationFault::WrongTable(text.into()),
        Position::ZERO,
    )
}

fn check_value_size(index: usize, is: usize, after: Position) -> Result<(), Rejection> {
    if is <= VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(Rejection::after(
        Refusal::TooLarge(TooLarge {
            what: format!("the value that writes[{index}] makes"),
            limit: "VALUE_BYTES_MAX".into(),
            is,
            max: VALUE_BYTES_MAX,
            unit: "bytes".into(),
        }),
        after,
    ))
}

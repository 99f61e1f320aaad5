//! The answer to a request: where it is in the log, or why it is not.

use std::borrow::Cow;

use bytes::Bytes;

use super::WireError;
use crate::{
    ByteReader, Committed, JsonText, Offset, OperationFault, Position, Refusal, Subject, TableId,
    TooLarge, TxnId,
};

/// The answer as it travels between nodes.
#[must_use]
pub fn encode_answer(answer: &Result<Committed, Refusal>) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(64));
    match answer {
        Ok(committed) => {
            out.u8(0);
            out.id(committed.id);
            out.u64(committed.position.0);
            out.u64(committed.first_offset.0);
            out.0.extend_from_slice(&committed.records.to_le_bytes());
            out.u8(committed.repeated.into());
        }
        Err(refusal) => out.refusal(refusal),
    }
    out.0
}

/// Reads an answer.
///
/// # Errors
/// When the bytes are not those of an answer.
pub fn decode_answer(bytes: Bytes) -> Result<Result<Committed, Refusal>, WireError> {
    let mut reader = ByteReader::new(bytes);
    let answer = match reader.u8()? {
        0 => Ok(Committed {
            id: reader.id()?,
            position: reader.position()?,
            first_offset: reader.offset()?,
            records: reader.u32()?,
            repeated: reader.flag()?,
        }),
        kind => Err(reader.refusal(kind)?),
    };
    reader.end()?;
    Ok(answer)
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn table(&mut self, table: TableId) {
        self.0.extend_from_slice(&table.0.to_le_bytes());
    }

    fn id(&mut self, id: TxnId) {
        self.0.extend_from_slice(&id.to_bytes());
    }

    fn piece(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn subject(&mut self, subject: &Subject) {
        let (kind, index) = match subject {
            Subject::PointRead(index) => (0, index),
            Subject::RangeRead(index) => (1, index),
            Subject::Guard(index) => (2, index),
            Subject::Write(index) => (3, index),
        };
        self.u8(kind);
        self.u64(*index as u64);
    }

    fn refusal(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::Conflict {
                subject,
                table,
                key,
                version,
                retry_at,
            } => {
                self.u8(1);
                self.subject(subject);
                self.table(*table);
                self.piece(key);
                self.u64(version.0);
                self.u64(retry_at.0);
            }
            Refusal::SnapshotTooOld {
                read_position,
                floor,
            } => self.two(2, read_position.0, floor.0),
            Refusal::SnapshotInFuture {
                read_position,
                latest,
            } => self.two(3, read_position.0, latest.0),
            Refusal::GuardFailed {
                index,
                met,
                version,
                retry_at,
            } => {
                self.indexed(4, *index);
                self.met(met.as_ref(), *version, *retry_at);
            }
            Refusal::NotUnique {
                index,
                field,
                value,
                owner,
            } => {
                self.indexed(5, *index);
                for piece in [field.as_bytes(), value.as_str().as_bytes(), owner] {
                    self.piece(piece);
                }
            }
            Refusal::BadOperation { index, fault } => {
                self.indexed(6, *index);
                self.fault(fault);
            }
            Refusal::IdMismatch { id, position } => self.id_and(7, *id, *position),
            Refusal::IdExpired { id, floor } => self.id_and(8, *id, *floor),
            Refusal::UnknownTable { subject, table } => self.unknown_table(subject, *table),
            Refusal::ReservedTable { index, table } => {
                self.indexed(10, *index);
                self.piece(table.as_bytes());
            }
            Refusal::Malformed(text) => self.text(11, text),
            Refusal::TooLarge(error) => self.too_large(error),
            Refusal::DiskFull {
                free_bytes,
                needed_bytes,
            } => self.two(13, *free_bytes, *needed_bytes),
            Refusal::Overloaded {
                reason,
                retry_after_ms,
            } => self.overloaded(reason, *retry_after_ms),
            Refusal::NotLeader => self.u8(15),
            Refusal::Stopped(why) => self.text(16, why),
            Refusal::NoLeader => self.u8(17),
        }
    }

    fn met(&mut self, met: Option<&Bytes>, version: Option<Offset>, retry_at: Position) {
        self.u8(met.is_some().into());
        met.into_iter().for_each(|met| self.piece(met));
        self.u8(version.is_some().into());
        version.into_iter().for_each(|version| self.u64(version.0));
        self.u64(retry_at.0);
    }

    fn too_large(&mut self, error: &TooLarge) {
        self.text(12, &error.what);
        self.piece(error.limit.as_bytes());
        self.u64(error.is as u64);
        self.u64(error.max as u64);
        self.piece(error.unit.as_bytes());
    }

    fn overloaded(&mut self, reason: &str, retry_after_ms: u64) {
        self.text(14, reason);
        self.u64(retry_after_ms);
    }

    fn unknown_table(&mut self, subject: &Subject, table: TableId) {
        self.u8(9);
        self.subject(subject);
        self.table(table);
    }

    fn indexed(&mut self, kind: u8, index: usize) {
        self.u8(kind);
        self.u64(index as u64);
    }

    fn two(&mut self, kind: u8, first: u64, second: u64) {
        self.u8(kind);
        self.u64(first);
        self.u64(second);
    }

    fn text(&mut self, kind: u8, text: &str) {
        self.u8(kind);
        self.piece(text.as_bytes());
    }

    fn id_and(&mut self, kind: u8, id: TxnId, position: Position) {
        self.u8(kind);
        self.id(id);
        self.u64(position.0);
    }

    fn fault(&mut self, fault: &OperationFault) {
        match fault {
            OperationFault::NotJson => self.u8(1),
            OperationFault::NotANumber(met) => self.text(2, met),
            OperationFault::NotAnArray(met) => self.text(3, met),
            OperationFault::NoPlace => self.u8(4),
            OperationFault::Overflow => self.u8(5),
            OperationFault::NotFinite => self.u8(6),
            OperationFault::TooManyDigits => self.u8(7),
            OperationFault::WrongTable(text) => self.text(8, text),
            OperationFault::Schema(text) => self.text(9, text),
        }
    }
}

impl ByteReader {
    fn id(&mut self) -> Result<TxnId, WireError> {
        Ok(TxnId::from_bytes(self.array()?))
    }

    fn position(&mut self) -> Result<Position, WireError> {
        Ok(Position(self.u64()?))
    }

    fn offset(&mut self) -> Result<Offset, WireError> {
        Ok(Offset(self.u64()?))
    }

    fn table(&mut self) -> Result<TableId, WireError> {
        Ok(TableId(self.u32()?))
    }

    fn index(&mut self) -> Result<usize, WireError> {
        let index = self.u64()?;
        Ok(usize::try_from(index).map_err(|_| self.short())?)
    }

    fn flag(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            is => Err(self.unknown("flag", is)),
        }
    }

    fn owned(&mut self) -> Result<Cow<'static, str>, WireError> {
        self.text().map(Cow::Owned)
    }

    fn subject(&mut self) -> Result<Subject, WireError> {
        let kind = self.u8()?;
        let of = match kind {
            0 => Subject::PointRead,
            1 => Subject::RangeRead,
            2 => Subject::Guard,
            3 => Subject::Write,
            _ => return Err(self.unknown("subject", kind)),
        };
        self.index().map(of)
    }

    fn too_large(&mut self) -> Result<TooLarge, WireError> {
        Ok(TooLarge {
            what: self.text()?,
            limit: self.owned()?,
            is: self.index()?,
            max: self.index()?,
            unit: self.owned()?,
        })
    }

    fn refusal(&mut self, kind: u8) -> Result<Refusal, WireError> {
        Ok(match kind {
            1 => Refusal::Conflict {
                subject: self.subject()?,
                table: self.table()?,
                key: self.piece()?,
                version: self.offset()?,
                retry_at: self.position()?,
            },
            2 => Refusal::SnapshotTooOld {
                read_position: self.position()?,
                floor: self.position()?,
            },
            3 => Refusal::SnapshotInFuture {
                read_position: self.position()?,
                latest: self.position()?,
            },
            4 => Refusal::GuardFailed {
                index: self.index()?,
                met: self.flag()?.then(|| self.piece()).transpose()?,
                version: self.flag()?.then(|| self.offset()).transpose()?,
                retry_at: self.position()?,
            },
            5 => Refusal::NotUnique {
                index: self.index()?,
                field: self.text()?,
                value: JsonText::parse(&self.text()?)?,
                owner: self.piece()?,
            },
            6 => Refusal::BadOperation {
                index: self.index()?,
                fault: self.fault()?,
            },
            7 => Refusal::IdMismatch {
                id: self.id()?,
                position: self.position()?,
            },
            8 => Refusal::IdExpired {
                id: self.id()?,
                floor: self.position()?,
            },
            9 => Refusal::UnknownTable {
                subject: self.subject()?,
                table: self.table()?,
            },
            10 => Refusal::ReservedTable {
                index: self.index()?,
                table: self.owned()?,
            },
            11 => Refusal::Malformed(self.text()?),
            12 => Refusal::TooLarge(self.too_large()?),
            13 => Refusal::DiskFull {
                free_bytes: self.u64()?,
                needed_bytes: self.u64()?,
            },
            14 => Refusal::Overloaded {
                reason: self.owned()?,
                retry_after_ms: self.u64()?,
            },
            15 => Refusal::NotLeader,
            16 => Refusal::Stopped(self.text()?),
            17 => Refusal::NoLeader,
            _ => return Err(self.unknown("answer", kind)),
        })
    }

    fn fault(&mut self) -> Result<OperationFault, WireError> {
        let kind = self.u8()?;
        Ok(match kind {
            1 => OperationFault::NotJson,
            2 => OperationFault::NotANumber(self.owned()?),
            3 => OperationFault::NotAnArray(self.owned()?),
            4 => OperationFault::NoPlace,
            5 => OperationFault::Overflow,
            6 => OperationFault::NotFinite,
            7 => OperationFault::TooManyDigits,
            8 => OperationFault::WrongTable(self.owned()?),
            9 => OperationFault::Schema(self.text()?),
            _ => return Err(self.unknown("fault of an operation", kind)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::LengthError;
    use crate::outcome::tests::one_of_each;

    fn answers() -> Vec<Result<Committed, Refusal>> {
        let fault = |fault| Refusal::BadOperation { index: 3, fault };
        let faults = [
            OperationFault::NotJson,
            OperationFault::NotANumber("a string".into()),
            OperationFault::NotAnArray("null".into()),
            OperationFault::NoPlace,
            OperationFault::NotFinite,
            OperationFault::TooManyDigits,
            OperationFault::WrongTable("a stream".into()),
        ];
        let met = Refusal::GuardFailed {
            index: 1,
            met: Some(Bytes::from_static(b"{}")),
            version: Some(Offset(4)),
            retry_at: Position(5),
        };
        let committed = Committed {
            id: TxnId(0x0102),
            position: Position(9),
            first_offset: Offset(7),
            records: 2,
            repeated: true,
        };
        let refusals = one_of_each().into_iter().chain(faults.map(fault));
        let refusals = refusals.chain([met]).map(Err);
        refusals.chain([Ok(committed)]).collect()
    }

    #[test]
    fn each_answer_arrives_as_it_was_sent() {
        for answer in answers() {
            let bytes = encode_answer(&answer);
            assert_eq!(decode_answer(bytes.clone().into()), Ok(answer.clone()));
            for len in 0..bytes.len() {
                let cut = decode_answer(Bytes::copy_from_slice(&bytes[..len]));
                assert!(
                    matches!(cut, Err(WireError::Length(LengthError::Short(_)))),
                    "{answer:?} {len}"
                );
            }
            let longer = [&bytes[..], b"x"].concat();
            assert_eq!(
                decode_answer(longer.into()),
                Err(LengthError::Long(1).into())
            );
        }
    }

    #[test]
    fn an_answer_has_these_bytes() {
        let number = u64::to_le_bytes;
        let committed = answers().pop().unwrap();
        let mut expected = vec![0];
        expected.extend([0; 14]);
        expected.extend([1, 2]);
        expected.extend([&number(9)[..], &number(7), &[2, 0, 0, 0, 1]].concat());
        assert_eq!(encode_answer(&committed), expected);

        let refused = Err(Refusal::Overloaded {
            reason: "full".into(),
            retry_after_ms: 50,
        });
        let expected = [&[14][..], &number(4), b"full", &number(50)].concat();
        assert_eq!(encode_answer(&refused), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_are_what_they_say(
            which in any::<prop::sample::Index>(),
            place in any::<prop::sample::Index>(),
            value in any::<u8>(),
        ) {
            let answers = answers();
            let mut bytes = encode_answer(&answers[which.index(answers.len())]);
            let place = place.index(bytes.len());
            bytes[place] = value;
            if let Ok(answer) = decode_answer(Bytes::from(bytes.clone())) {
                prop_assert_eq!(encode_answer(&answer), bytes);
            }
        }
    }
}

//! A request: its id, and the parts that its fingerprint is made of.

use bytes::Bytes;

use super::WireError;
use crate::{
    ByteReader, CommitRequest, Compare, FieldPath, Guard, Header, JsonText, KeyRange, Number,
    Offset, Operation, PointRead, Position, Predicate, TableId, TxnId, Write,
};

const WITHOUT_ID: u8 = 0;
const WITH_ID: u8 = 1;
const NO_POSITION: u64 = u64::MAX;

impl CommitRequest {
    /// The request as it travels between nodes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size() + 64);
        match self.id {
            None => out.push(WITHOUT_ID),
            Some(id) => {
                out.push(WITH_ID);
                out.extend_from_slice(&id.to_bytes());
            }
        }
        self.parts(&mut |bytes| out.extend_from_slice(bytes));
        out
    }

    /// Reads a request. Its keys and values share the memory of `bytes`. Limits are not checked: see
    /// [`CommitRequest::check_limits`].
    ///
    /// # Errors
    /// When the bytes are not those of a request.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = ByteReader::new(bytes);
        let id = match reader.u8()? {
            WITHOUT_ID => None,
            WITH_ID => Some(TxnId::from_bytes(reader.array()?)),
            is => return Err(reader.unknown("mark of an id", is)),
        };
        let mut request = Self {
            id,
            ..Self::default()
        };
        request.read_position = read_position(&mut reader)?;
        let mut stage = 1;
        while !reader.is_at_end() {
            let tag = reader.u8()?;
            let table = TableId(reader.u32()?);
            // Point reads, range reads, guards and writes, in this order.
            let stage_of = match tag {
                1 => 1,
                2 | 3 => 2,
                4 => 3,
                _ => 4,
            };
            if stage_of < stage {
                return Err(WireError::Part(reader.at()));
            }
            stage = stage_of;
            request.part(tag, table, &mut reader)?;
        }
        Ok(request)
    }

    fn part(&mut self, tag: u8, table: TableId, reader: &mut ByteReader) -> Result<(), WireError> {
        match tag {
            1 => {
                let key = reader.piece()?;
                self.point_reads.push(PointRead { table, key });
            }
            2 | 3 => {
                let from = reader.piece()?;
                let to = reader.piece()?;
                if tag == 3 && !to.is_empty() {
                    return Err(WireError::Part(reader.at()));
                }
                let to = (tag == 2).then_some(to);
                self.range_reads.push(KeyRange { table, from, to });
            }
            4 => {
                let key = reader.piece()?;
                let predicate = predicate(reader)?;
                self.guards.push(Guard {
                    table,
                    key,
                    predicate,
                });
            }
            9 => {
                let (name, value) = (reader.piece()?, reader.piece()?);
                let Some(write) = self.writes.last_mut().filter(|_| table == TableId(0)) else {
                    return Err(WireError::Part(reader.at()));
                };
                write.headers.push(Header { name, value });
            }
            _ => {
                let key = reader.piece()?;
                self.writes.push(Write {
                    table,
                    key,
                    operation: operation(tag, reader)?,
                    headers: Vec::new(),
                });
            }
        }
        Ok(())
    }
}

fn read_position(reader: &mut ByteReader) -> Result<Option<Position>, WireError> {
    let (tag, table) = (reader.u8()?, reader.u32()?);
    let piece = reader.piece()?;
    match <[u8; 8]>::try_from(&piece[..]) {
        Ok(bytes) if tag == 0 && table == 0 => {
            let position = u64::from_le_bytes(bytes);
            Ok((position != NO_POSITION).then_some(Position(position)))
        }
        _ => Err(WireError::Part(reader.at())),
    }
}

fn predicate(reader: &mut ByteReader) -> Result<Predicate, WireError> {
    let piece = reader.piece()?;
    match piece[..] {
        [0] => Ok(Predicate::Exists),
        [1] => Ok(Predicate::Absent),
        [2, ref offset @ ..] => match <[u8; 8]>::try_from(offset) {
            Ok(offset) => Ok(Predicate::Version(Offset(u64::from_le_bytes(offset)))),
            Err(_) => Err(WireError::Part(reader.at())),
        },
        [3, compare] => Ok(Predicate::Field {
            compare: match compare {
                0 => Compare::Eq,
                1 => Compare::Ne,
                2 => Compare::Lt,
                3 => Compare::Le,
                4 => Compare::Gt,
                5 => Compare::Ge,
                _ => return Err(reader.unknown("comparison", compare)),
            },
            path: FieldPath::parse(&reader.text()?)?,
            value: JsonText::parse(&reader.text()?)?,
        }),
        _ => Err(WireError::Part(reader.at())),
    }
}

fn operation(tag: u8, reader: &mut ByteReader) -> Result<Operation, WireError> {
    let path = |reader: &mut ByteReader| Ok::<_, WireError>(FieldPath::parse(&reader.text()?)?);
    let number = |reader: &mut ByteReader| Ok::<_, WireError>(Number::parse(&reader.text()?)?);
    Ok(match tag {
        5 => Operation::Put(reader.piece()?),
        6 => Operation::Delete,
        7 => Operation::AppendBytes(reader.piece()?),
        10 => Operation::Add(path(reader)?, number(reader)?),
        11 => Operation::Min(path(reader)?, number(reader)?),
        12 => Operation::Max(path(reader)?, number(reader)?),
        13 => Operation::Append(path(reader)?, JsonText::parse(&reader.text()?)?),
        _ => return Err(WireError::Part(reader.at())),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::LengthError;
    use crate::fingerprint::tests::everything;

    fn decoded(bytes: &[u8]) -> Result<CommitRequest, WireError> {
        CommitRequest::decode(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        let without_id = CommitRequest {
            id: None,
            read_position: None,
            ..everything()
        };
        for request in [CommitRequest::default(), everything(), without_id] {
            let arrived = decoded(&request.encode()).unwrap();
            assert_eq!(arrived, request);
            assert_eq!(arrived.fingerprint(), request.fingerprint());
        }
    }

    #[test]
    fn a_request_that_was_cut_is_no_request() {
        let bytes = everything().encode();
        let mut whole = Vec::new();
        for len in 0..bytes.len() {
            // Where a part ends, a shorter request does.
            match decoded(&bytes[..len]) {
                Ok(shorter) => whole.push(shorter),
                Err(error) => assert!(
                    matches!(error, WireError::Length(LengthError::Short(_))),
                    "{len}: {error}"
                ),
            }
        }
        assert_eq!(whole.len(), 15, "behind each part but the last");
    }

    #[test]
    fn parts_have_an_order() {
        let in_order = everything().encode();
        let writes_first = CommitRequest {
            writes: everything().writes,
            ..CommitRequest::default()
        };
        let reads_after = CommitRequest {
            point_reads: everything().point_reads,
            ..CommitRequest::default()
        };
        let head = CommitRequest::default().encode().len();
        let mixed = [&writes_first.encode()[..], &reads_after.encode()[head..]].concat();
        assert!(decoded(&in_order).is_ok());
        assert!(matches!(decoded(&mixed), Err(WireError::Part(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_are_what_they_say(
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = everything().encode();
            for (place, value) in flips {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            if let Ok(request) = decoded(&bytes) {
                prop_assert_eq!(request.encode(), bytes);
            }
        }
    }
}

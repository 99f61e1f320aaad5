//! The fingerprint of a request: it tells a retry from another request that uses the same id by
//! mistake. It is stored with each transaction, so its bytes, drawn in `docs/format.md`, never change.

use crate::{
    CommitRequest, Compare, FieldPath, Guard, Operation, Position, Predicate, TableId, Write,
};

const NO_TABLE: TableId = TableId(0);

impl CommitRequest {
    /// A fingerprint of everything but the id: the same request has the same one.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        self.parts(&mut |bytes| {
            hasher.update(bytes);
        });
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }

    /// What the fingerprint is made of; between nodes a request has these bytes too.
    pub(crate) fn parts(&self, out: &mut dyn FnMut(&[u8])) {
        let position = self.read_position.map_or(u64::MAX, Position::get);
        part(out, 0, NO_TABLE, &[&position.to_le_bytes()]);
        for read in &self.point_reads {
            part(out, 1, read.table, &[&read.key]);
        }
        for range in &self.range_reads {
            match &range.to {
                Some(to) => part(out, 2, range.table, &[&range.from, to]),
                None => part(out, 3, range.table, &[&range.from, b""]),
            }
        }
        for guard in &self.guards {
            encode_guard(out, guard);
        }
        for write in &self.writes {
            encode_write(out, write);
            for header in &write.headers {
                part(out, 9, NO_TABLE, &[&header.name, &header.value]);
            }
        }
    }
}

fn part(out: &mut dyn FnMut(&[u8]), tag: u8, table: TableId, pieces: &[&[u8]]) {
    out(&[tag]);
    out(&table.0.to_le_bytes());
    for piece in pieces {
        out(&(piece.len() as u64).to_le_bytes());
        out(piece);
    }
}

fn encode_guard(out: &mut dyn FnMut(&[u8]), guard: &Guard) {
    let mut encode = |pieces: &[&[u8]]| {
        let pieces: Vec<&[u8]> = [&[&guard.key[..]], pieces].concat();
        part(out, 4, guard.table, &pieces);
    };
    match &guard.predicate {
        Predicate::Exists => encode(&[&[0]]),
        Predicate::Absent => encode(&[&[1]]),
        Predicate::Version(offset) => {
            let mut predicate = [2; 9];
            predicate[1..].copy_from_slice(&offset.0.to_le_bytes());
            encode(&[&predicate]);
        }
        Predicate::Field {
            path,
            compare,
            value,
        } => {
            let comparison = match compare {
                Compare::Eq => 0,
                Compare::Ne => 1,
                Compare::Lt => 2,
                Compare::Le => 3,
                Compare::Gt => 4,
                Compare::Ge => 5,
            };
            encode(&[&[3, comparison], text(path), value.as_str().as_bytes()]);
        }
    }
}

fn encode_write(out: &mut dyn FnMut(&[u8]), write: &Write) {
    let mut encode = |tag, pieces: &[&[u8]]| part(out, tag, write.table, pieces);
    match &write.operation {
        Operation::Put(value) => encode(5, &[&write.key, value]),
        Operation::Delete => encode(6, &[&write.key]),
        Operation::AppendBytes(tail) => encode(7, &[&write.key, tail]),
        Operation::Add(path, by) => encode(10, &[&write.key, text(path), by.as_str().as_bytes()]),
        Operation::Min(path, by) => encode(11, &[&write.key, text(path), by.as_str().as_bytes()]),
        Operation::Max(path, by) => encode(12, &[&write.key, text(path), by.as_str().as_bytes()]),
        Operation::Append(path, element) => {
            encode(13, &[&write.key, text(path), element.as_str().as_bytes()]);
        }
    }
}

fn text(path: &FieldPath) -> &[u8] {
    path.as_str().as_bytes()
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::{Header, KeyRange, Number, Offset, PointRead, TxnId};

    const TABLE: TableId = TableId(0x0102);

    fn write(operation: Operation) -> Write {
        Write {
            table: TABLE,
            key: Bytes::from_static(b"k"),
            operation,
            headers: Vec::new(),
        }
    }

    fn guard(predicate: Predicate) -> Guard {
        Guard {
            table: TABLE,
            key: Bytes::from_static(b"g"),
            predicate,
        }
    }

    fn path() -> FieldPath {
        FieldPath::parse("/a").unwrap()
    }

    /// A request with one of everything.
    pub(crate) fn everything() -> CommitRequest {
        let range = |to: Option<&'static [u8]>| KeyRange {
            table: TABLE,
            from: Bytes::from_static(b"f"),
            to: to.map(Bytes::from_static),
        };
        let mut put = write(Operation::Put(Bytes::from_static(b"v")));
        put.headers.push(Header {
            name: Bytes::from_static(b"h"),
            value: Bytes::from_static(b"hv"),
        });
        let by = || Number::parse("1.0").unwrap();
        CommitRequest {
            id: Some(TxnId(7)),
            read_position: Some(Position(9)),
            point_reads: vec![PointRead {
                table: TABLE,
                key: Bytes::from_static(b"r"),
            }],
            range_reads: vec![range(Some(b"t")), range(None)],
            guards: vec![
                guard(Predicate::Exists),
                guard(Predicate::Absent),
                guard(Predicate::Version(Offset(5))),
                guard(Predicate::Field {
                    path: path(),
                    compare: Compare::Ge,
                    value: json!([1]).into(),
                }),
            ],
            writes: vec![
                put,
                write(Operation::Delete),
                write(Operation::AppendBytes(Bytes::from_static(b"b"))),
                write(Operation::Add(path(), by())),
                write(Operation::Min(path(), by())),
                write(Operation::Max(path(), by())),
                write(Operation::Append(path(), json!("x").into())),
            ],
        }
    }

    #[test]
    fn a_fingerprint_is_made_of_these_bytes() {
        let t = b"\x02\x01\0\0";
        let piece = |bytes: &[u8]| [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat();
        let part = |tag: u8, table: &[u8], pieces: &[&[u8]]| {
            let pieces: Vec<u8> = pieces.iter().flat_map(|bytes| piece(bytes)).collect();
            [&[tag][..], table, &pieces].concat()
        };
        let expected = [
            part(0, &[0; 4], &[b"\x09\0\0\0\0\0\0\0"]),
            part(1, t, &[b"r"]),
            part(2, t, &[b"f", b"t"]),
            part(3, t, &[b"f", b""]),
            part(4, t, &[b"g", b"\0"]),
            part(4, t, &[b"g", b"\x01"]),
            part(4, t, &[b"g", b"\x02\x05\0\0\0\0\0\0\0"]),
            part(4, t, &[b"g", b"\x03\x05", b"/a", b"[1]"]),
            part(5, t, &[b"k", b"v"]),
            part(9, &[0; 4], &[b"h", b"hv"]),
            part(6, t, &[b"k"]),
            part(7, t, &[b"k", b"b"]),
            part(10, t, &[b"k", b"/a", b"1.0"]),
            part(11, t, &[b"k", b"/a", b"1.0"]),
            part(12, t, &[b"k", b"/a", b"1.0"]),
            part(13, t, &[b"k", b"/a", b"\"x\""]),
        ];
        let mut bytes = Vec::new();
        everything().parts(&mut |more| bytes.extend_from_slice(more));
        assert_eq!(bytes, expected.concat());
        let hash = blake3::hash(&bytes);
        let first: [u8; 8] = hash.as_bytes()[..8].try_into().unwrap();
        assert_eq!(everything().fingerprint(), u64::from_le_bytes(first));
    }

    #[test]
    fn stored_fingerprints_never_change() {
        let plain = CommitRequest {
            writes: vec![write(Operation::Put(Bytes::from_static(b"v")))],
            ..CommitRequest::default()
        };
        let requests = [CommitRequest::default(), plain, everything()];
        assert_eq!(
            requests.map(|request| request.fingerprint()),
            [
                4_884_303_833_468_170_869,
                9_821_258_091_240_794_986,
                12_550_046_950_707_252_545
            ]
        );
    }

    #[test]
    fn a_fingerprint_tells_requests_apart_but_not_their_ids() {
        let with = |key: &'static [u8], value: &'static [u8]| CommitRequest {
            writes: vec![Write {
                key: Bytes::from_static(key),
                ..write(Operation::Put(Bytes::from_static(value)))
            }],
            ..CommitRequest::default()
        };
        let retried = CommitRequest {
            id: Some(TxnId(7)),
            ..with(b"ab", b"c")
        };
        assert_ne!(
            with(b"ab", b"c").fingerprint(),
            with(b"a", b"bc").fingerprint()
        );
        assert_eq!(with(b"ab", b"c").fingerprint(), retried.fingerprint());
    }
}

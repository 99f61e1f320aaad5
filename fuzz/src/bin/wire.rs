//! Requests and answers between nodes: arbitrary bytes are refused, or are exactly what was read.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use onelog_fuzz::seeds;
use onelog_record::{
    CommitRequest, Committed, Compare, FieldPath, Guard, Header, JsonText, KeyRange, Number,
    Offset, Operation, PointRead, Position, Predicate, Refusal, Subject, TableId, TxnId, Write,
    decode_answer, encode_answer,
};

fuzz_target!(init: seeds::hand_out(make_seeds), |data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(request) = CommitRequest::decode(bytes.clone()) {
        assert_eq!(request.encode(), data);
        assert!(request.size() < 200 * (data.len() + 1), "memory goes with the input");
    }
    if let Ok(answer) = decode_answer(bytes) {
        assert_eq!(encode_answer(&answer), data);
    }
});

fn make_seeds() -> Vec<Vec<u8>> {
    let (table, key) = (TableId(1024), Bytes::from_static(b"key"));
    let path = FieldPath::parse("/a").expect("it is a path");
    let number = Number::parse("1.50").expect("it is a number");
    let text = JsonText::parse("[1]").expect("it is JSON");
    let guard = |predicate| Guard {
        table,
        key: key.clone(),
        predicate,
    };
    let write = |operation| Write {
        table,
        key: key.clone(),
        operation,
        headers: vec![Header {
            name: key.clone(),
            value: key.clone(),
        }],
    };
    let request = CommitRequest {
        id: Some(TxnId(5)),
        read_position: Some(Position(7)),
        point_reads: vec![PointRead {
            table,
            key: key.clone(),
        }],
        range_reads: vec![KeyRange {
            table,
            from: key.clone(),
            to: None,
        }],
        guards: vec![
            guard(Predicate::Version(Offset(3))),
            guard(Predicate::Field {
                path: path.clone(),
                compare: Compare::Ge,
                value: text.clone(),
            }),
        ],
        writes: vec![
            write(Operation::Put(key.clone())),
            write(Operation::Add(path.clone(), number)),
            write(Operation::Append(path, text)),
        ],
    };
    let committed = Committed {
        id: TxnId(5),
        position: Position(7),
        first_offset: Offset(6),
        records: 1,
        repeated: false,
    };
    let refusal = Refusal::Conflict {
        subject: Subject::PointRead(0),
        table,
        key,
        version: Offset(3),
        retry_at: Position(7),
    };
    vec![
        CommitRequest::default().encode(),
        request.encode(),
        encode_answer(&Ok(committed)),
        encode_answer(&Err(refusal)),
    ]
}

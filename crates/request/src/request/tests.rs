use onelog_record::{
    Compare, FieldPath, Guard, HEADERS_MAX, KeyRange, Operation, PointRead, Predicate, TableId,
    TableKind, ValueKind, nearest_name,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::KnownTable;

const NAMES: [&str; 3] = ["shop.orders", "shop.blobs", "shop.clicks"];

struct Shop;

impl Tables for Shop {
    fn table(&self, name: &str) -> Option<KnownTable> {
        let known = |id, kind, value| KnownTable {
            id: TableId(id),
            kind,
            value,
        };
        match name {
            "shop.orders" => Some(known(1024, TableKind::Keyed, ValueKind::Json)),
            "shop.blobs" => Some(known(1025, TableKind::Keyed, ValueKind::Bytes)),
            "shop.clicks" => Some(known(1026, TableKind::Stream, ValueKind::Json)),
            _ => None,
        }
    }

    fn nearest(&self, name: &str) -> Option<String> {
        nearest_name(name, NAMES).map(str::to_owned)
    }
}

fn parse(body: &str) -> Result<CommitRequest, ParseError> {
    parse_request(body.as_bytes(), &Shop).map(|parsed| parsed.request)
}

fn path(text: &str) -> FieldPath {
    FieldPath::parse(text).unwrap()
}

#[test]
fn every_operation_is_read() {
    let request = parse(
        r#"{"id":"01900000-0000-7000-8000-000000000001","writes":[
            {"op":"put","table":"shop.orders","key":"1","value": {"a" : 1.0}},
            {"value":{"base64":"AP8="},"key":{"base64":"/w=="},"table":"shop.blobs","op":"put"},
            {"op":"delete","table":"shop.orders","key":"1","headers":{"why":"test"}},
            {"op":"add","table":"shop.orders","key":"n","by":-2},
            {"op":"min","table":"shop.orders","key":"n","field":"/low","by":1.5},
            {"op":"max","table":"shop.orders","key":"n","field":"high","by":18446744073709551615},
            {"op":"append","table":"shop.orders","key":"l","field":"/tags","value":["x"]},
            {"op":"append","table":"shop.blobs","key":"b","value":"tail"}]}"#,
    )
    .unwrap();
    assert_eq!(
        request.id.unwrap().to_string(),
        "01900000-0000-7000-8000-000000000001"
    );
    let operations: Vec<_> = request.writes.iter().map(|w| w.operation.clone()).collect();
    assert_eq!(
        operations,
        [
            Operation::Put(br#"{"a" : 1.0}"#[..].into()),
            Operation::Put([0, 255][..].to_vec().into()),
            Operation::Delete,
            Operation::Add(FieldPath::whole(), (-2).into()),
            Operation::Min(path("/low"), onelog_record::Number::parse("1.5").unwrap()),
            Operation::Max(path("high"), u64::MAX.into()),
            Operation::Append(path("/tags"), json!(["x"]).into()),
            Operation::AppendBytes(b"tail"[..].into()),
        ]
    );
    assert_eq!(&request.writes[1].key[..], [255]);
    assert_eq!(&request.writes[2].headers[0].name[..], b"why");
}

#[test]
fn every_read_and_guard_is_read_and_found_again_by_its_number() {
    let parsed = parse_request(
        br#"{"read_position":7,
            "reads":[{"table":"shop.orders","prefix":"a"},{"table":"shop.orders","key":"k"},
                     {"table":"shop.orders","from":"","to":"b"},{"table":"shop.orders","from":"c"}],
            "guards":[{"table":"shop.orders","key":"k","exists":true},
                      {"table":"shop.orders","key":"k","absent":true},
                      {"table":"shop.orders","key":"k","version":3},
                      {"table":"shop.orders","key":"k","field":"/n","ge":1}]}"#,
        &Shop,
    )
    .unwrap();
    let request = &parsed.request;
    let table = TableId(1024);
    let key = bytes::Bytes::from_static(b"k");
    assert_eq!(request.read_position, Some(Position(7)));
    assert_eq!(
        request.point_reads,
        [PointRead {
            table,
            key: key.clone()
        }]
    );
    let range = |from: &'static str, to: Option<&'static str>| KeyRange {
        table,
        from: from.into(),
        to: to.map(Into::into),
    };
    assert_eq!(
        request.range_reads,
        [
            range("a", Some("b")),
            range("", Some("b")),
            range("c", None)
        ]
    );
    let predicates: Vec<Predicate> = request.guards.iter().map(|g| g.predicate.clone()).collect();
    assert_eq!(
        predicates,
        [
            Predicate::Exists,
            Predicate::Absent,
            Predicate::Version(onelog_record::Offset(3)),
            Predicate::Field {
                path: path("/n"),
                compare: Compare::Ge,
                value: json!(1).into()
            },
        ]
    );
    assert!(
        matches!(&request.guards[0], Guard { table: t, key: k, .. } if *t == table && *k == key)
    );
    assert_eq!(parsed.place(&Subject::PointRead(0)), "reads[1]");
    assert_eq!(parsed.place(&Subject::RangeRead(1)), "reads[2]");
    assert_eq!(parsed.place(&Subject::Guard(3)), "guards[3]");
}

#[test]
fn every_fault_says_where_it_is_and_what_to_do() {
    let write = |inner: &str| {
        format!(r#"{{"writes":[{{"op":"delete","table":"shop.orders","key":"ok"}},{{{inner}}}]}}"#)
    };
    let read = |inner: &str| {
        format!(r#"{{"read_position":1,"reads":[{{"table":"shop.orders",{inner}}}]}}"#)
    };
    let guard =
        |inner: &str| format!(r#"{{"guards":[{{"table":"shop.orders","key":"k",{inner}}}]}}"#);
    let put = |inner: &str| {
        write(&format!(
            r#""op":"put","table":"shop.orders","key":"k",{inner}"#
        ))
    };
    for (body, place, message) in [
        (String::new(), "body", "EOF"),
        ("[]".into(), "body", "expected a transaction"),
        ("{}".into(), "body", "empty"),
        (r#"{"writes":[]} x"#.into(), "body", "empty"),
        (r#"{"write":[]}"#.into(), "body", "did you mean 'writes'"),
        (r#"{"zebra":[]}"#.into(), "body", "known are: id"),
        (r#"{"writes":{}}"#.into(), "writes", "expected a list"),
        (r#"{"writes":[],"writes":[]}"#.into(), "writes", "twice"),
        (
            r#"{"id":"x","writes":[]}"#.into(),
            "id",
            "not a transaction id",
        ),
        (r#"{"read_position":-1}"#.into(), "read_position", "whole"),
        (r#"{"writes":[5]}"#.into(), "writes[0]", "expected a write"),
        (r#"{"writes":[{"op":"#.into(), "writes[0].op", "not JSON"),
        (
            r#"{"reads":[{"table":"shop.orders","key":"k"}]}"#.into(),
            "read_position",
            "Onelog-Position",
        ),
        (write(""), "writes[1]", "'op' is missing"),
        (write(r#""op":"delete""#), "writes[1]", "'table' is missing"),
        (
            write(r#""op":"delete","table":"shop.orders""#),
            "writes[1]",
            "'key' is missing",
        ),
        (
            write(r#""op":"putt""#),
            "writes[1].op",
            "did you mean 'put'",
        ),
        (write(r#""op":"zzzzzz""#), "writes[1].op", "known are: put"),
        (write(r#""op":5"#), "writes[1].op", "a string"),
        (write(r#""key":5"#), "writes[1].key", "base64"),
        (
            write(r#""key":{"base64":"*"}"#),
            "writes[1].key",
            "not base64",
        ),
        (write(r#""key":"a","key":"b""#), "writes[1].key", "twice"),
        (write(r#""vallue":1"#), "writes[1]", "did you mean 'value'"),
        (write(r#""field":"/a~2""#), "writes[1].field", "~"),
        (write(r#""by":"5""#), "writes[1].by", "number"),
        (write(r#""headers":[]"#), "writes[1].headers", "an object"),
        (write(r#""headers":{"a":5}"#), "writes[1].headers", "base64"),
        (
            write(r#""headers":{"a":"1","a":"2"}"#),
            "writes[1].headers",
            "twice",
        ),
        (
            write(r#""op":"delete","table":"shop.orders","key":"k","value":1"#),
            "writes[1].value",
            "takes no 'value'",
        ),
        (
            write(r#""op":"add","table":"shop.orders","key":"k""#),
            "writes[1]",
            "'by' is missing",
        ),
        (
            put(r#""value":1,"field":"/a""#),
            "writes[1].field",
            "takes no 'field'",
        ),
        (put(r#""headers":{}"#), "writes[1]", "'value' is missing"),
        (
            put(r#""value":{"a":1,"a":2}"#),
            "writes[1].value",
            "'a' occurs twice",
        ),
        (put(r#""value":1e999"#), "writes[1].value", "out of range"),
        (
            put(&format!(
                r#""value":{}{}"#,
                "[".repeat(5000),
                "]".repeat(5000)
            )),
            "writes[1].value",
            "nested too deeply",
        ),
        (
            write(r#""op":"put","table":"shop.blobs","key":"k","value":{"a":1}"#),
            "writes[1].value",
            "holds bytes",
        ),
        (read(r#""keyy":"k""#), "reads[0]", "did you mean 'key'"),
        (
            r#"{"read_position":1,"reads":[{"table":"shop.orders"}]}"#.into(),
            "reads[0]",
            "nothing is read",
        ),
        (
            read(r#""key":"k","prefix":"k""#),
            "reads[0]",
            "do not go together",
        ),
        (guard(r#""exists":false"#), "guards[0].exists", "absent"),
        (guard(r#""exists":1"#), "guards[0].exists", "boolean"),
        (
            guard(r#""exists":true,"absent":true"#),
            "guards[0]",
            "one thing",
        ),
        (guard(r#""eq":1"#), "guards[0]", "'field' is missing"),
        (guard(r#""field":"/a""#), "guards[0]", "one thing"),
        (
            guard(r#""field":"/a","eq":1,"ne":2"#),
            "guards[0].ne",
            "one thing",
        ),
        (
            guard(r#""field":"/a","version":2"#),
            "guards[0].field",
            "one thing",
        ),
        (guard(r#""version":"2""#), "guards[0].version", "whole"),
    ] {
        match parse(&body) {
            Err(ParseError::Malformed {
                place: at,
                message: said,
            }) => {
                assert_eq!(at, place, "{body}: {said}");
                assert!(said.contains(message), "{body}: {said}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn a_body_that_is_no_utf8_says_at_which_byte() {
    let error = parse_request(b"{\"id\":\"\xff\"}", &Shop).unwrap_err();
    assert!(error.to_string().contains("not UTF-8 at byte 7"), "{error}");
}

#[test]
fn an_unknown_table_is_named_with_the_nearest_one() {
    let unknown = |place: &str, name: &str, nearest: Option<&str>| ParseError::UnknownTable {
        place: place.into(),
        name: name.into(),
        nearest: nearest.map(Into::into),
    };
    assert_eq!(
        parse(r#"{"writes":[{"op":"delete","table":"shop.order","key":""}]}"#).unwrap_err(),
        unknown("writes[0].table", "shop.order", Some("shop.orders"))
    );
    assert_eq!(
        parse(r#"{"guards":[{"key":"","table":"zzz","exists":true}]}"#).unwrap_err(),
        unknown("guards[0].table", "zzz", None)
    );
}

#[test]
fn the_tables_of_onelog_cannot_be_written() {
    assert_eq!(
        parse(r#"{"writes":[{"table":"onelog.tables"}]}"#).unwrap_err(),
        ParseError::ReservedTable {
            place: "writes[0].table".into(),
            name: "onelog.tables".into()
        }
    );
}

#[test]
fn every_limit_is_named() {
    let deletes = |n: usize| {
        let one = r#"{"op":"delete","table":"shop.orders","key":"k"}"#;
        format!(r#"{{"writes":[{}]}}"#, vec![one; n].join(","))
    };
    assert!(parse(&deletes(RECORDS_MAX)).is_ok());
    let long = "k".repeat(onelog_record::KEY_BYTES_MAX + 1);
    let headers: Vec<_> = (0..=HEADERS_MAX).map(|n| format!(r#""{n}":"""#)).collect();
    for (body, limit) in [
        (deletes(RECORDS_MAX + 1), "RECORDS_MAX"),
        (
            format!(r#"{{"writes":[{{"op":"delete","table":"shop.orders","key":"{long}"}}]}}"#),
            "KEY_BYTES_MAX",
        ),
        (
            format!(r#"{{"writes":[{{"headers":{{{}}}}}]}}"#, headers.join(",")),
            "HEADERS_MAX",
        ),
    ] {
        match parse(&body) {
            Err(ParseError::TooLarge(error)) => assert_eq!(error.limit, limit),
            other => panic!("{limit}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = parse_request(&bytes, &Shop);
    }

    #[test]
    fn a_damaged_request_is_read_or_refused(at in 0usize..150, byte: u8) {
        let mut body = br#"{"read_position":1,"reads":[{"table":"shop.orders","prefix":"a"}],"guards":[{"table":"shop.orders","key":"k","field":"/n","ge":1}],"writes":[{"op":"put","table":"shop.orders","key":"1","value":{"a":1}}]}"#.to_vec();
        body[at] = byte;
        if let Err(ParseError::Malformed { place, message }) = parse_request(&body, &Shop) {
            prop_assert!(!place.is_empty() && !message.is_empty());
        }
    }
}

//! The rows of records, byte by byte.

use std::error::Error;

use bytes::Bytes;
use onelog_groups::{GroupRecord, MemberRecord, OffsetRecord, Record};

use crate::fixture::{at, protocol};

fn examples() -> Vec<(Record, &'static str, &'static str)> {
    vec![
        (
            Record::PutGroup {
                group: "billing".to_owned(),
                record: GroupRecord {
                    generation: 3,
                    protocol_type: Some("consumer".to_owned()),
                    protocol: Some("range".to_owned()),
                    leader: Some("app-01".to_owned()),
                    emptied_at: None,
                },
            },
            r#"["billing","group"]"#,
            r#"{"generation":3,"protocol_type":"consumer","protocol":"range","leader":"app-01","emptied_at":null}"#,
        ),
        (
            Record::PutMember {
                group: "billing".to_owned(),
                member: "app-01".to_owned(),
                record: MemberRecord {
                    instance_id: Some("one".to_owned()),
                    client_id: "app".to_owned(),
                    client_host: "/10.0.0.7".to_owned(),
                    session_timeout_ms: 45_000,
                    rebalance_timeout_ms: 300_000,
                    joined: 3,
                    protocols: vec![protocol("range", "\0\u{1}")],
                    assignment: Bytes::from_static(&[0xff, 0]),
                },
            },
            r#"["billing","member","app-01"]"#,
            r#"{"instance_id":"one","client_id":"app","client_host":"/10.0.0.7","session_timeout_ms":45000,"rebalance_timeout_ms":300000,"joined":3,"protocols":[{"name":"range","metadata":"AAE="}],"assignment":"/wA="}"#,
        ),
        (
            Record::PutOffset {
                group: "a \"quoted\" one".to_owned(),
                at: at("shop.orders", 2),
                record: OffsetRecord {
                    offset: 812,
                    leader_epoch: -1,
                    metadata: String::new(),
                    committed_at: 1_767_225_600_000,
                },
            },
            r#"["a \"quoted\" one","offset","shop.orders",2]"#,
            r#"{"offset":812,"leader_epoch":-1,"metadata":"","committed_at":1767225600000}"#,
        ),
    ]
}

#[test]
fn records_are_rows_of_these_bytes() {
    for (record, key, value) in examples() {
        let row = record.row();
        assert_eq!(std::str::from_utf8(&row.key), Ok(key));
        let bytes = row.value.expect("it is put");
        assert_eq!(std::str::from_utf8(&bytes), Ok(value));
        assert_eq!(
            Record::of_row(&row.key, &bytes).expect("it can be read"),
            record
        );
    }
}

#[test]
fn the_end_of_a_record_has_its_key_and_no_value() {
    let group = "billing".to_owned();
    let ends = [
        (
            Record::DeleteGroup {
                group: group.clone(),
            },
            r#"["billing","group"]"#,
        ),
        (
            Record::DeleteMember {
                group: group.clone(),
                member: "app-01".to_owned(),
            },
            r#"["billing","member","app-01"]"#,
        ),
        (
            Record::DeleteOffset {
                group,
                at: at("shop.orders", 2),
            },
            r#"["billing","offset","shop.orders",2]"#,
        ),
    ];
    for (record, key) in ends {
        let row = record.row();
        assert_eq!(std::str::from_utf8(&row.key), Ok(key));
        assert_eq!(row.value, None);
    }
}

#[test]
fn rows_that_are_no_records_are_named() {
    for key in [
        "",
        "7",
        "[]",
        r#"["g"]"#,
        r#"["g","group","x"]"#,
        r#"["g","offset","t","0"]"#,
        r#"["g","offset","t",3000000000]"#,
        r#"["g","topic","t"]"#,
    ] {
        assert!(Record::of_row(key.as_bytes(), b"{}").is_err(), "{key}");
    }
    let refused = Record::of_row(br#"["g","group"]"#, br#"{"leader":"a"}"#);
    let error = refused.expect_err("fields are missing");
    assert!(error.to_string().contains(r#"["g","group"]"#), "{error}");
    assert!(error.source().is_some());
}

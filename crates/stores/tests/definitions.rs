//! Definitions of every kind: what is read, and what is refused with its place.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use onelog_mapping::{ColumnType, Element};
use onelog_store::SinkDefinition;
use onelog_stores::KINDS;
use serde_json::json;

fn error(text: &str) -> String {
    SinkDefinition::from_slice(KINDS, text.as_bytes())
        .unwrap_err()
        .to_string()
}

fn with_mapping(mapping: &str) -> String {
    format!(r#"{{"name":"s","kind":"sqlite","path":"a.db","mappings":[{mapping}]}}"#)
}

#[test]
fn a_definition_is_read_and_written_as_the_same_text() {
    let text = r#"{"name":"search","kind":"sqlite","path":"a.db","mappings":[{"table":"shop.orders","into":"orders","columns":{"zeta":{"from":"/z","type":"json"},"id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"real"},"at":{"from":"$version","type":"integer"}},"full_text":["zeta"]},{"table":"a","into":"b"}]}"#;
    let definition = SinkDefinition::from_slice(KINDS, text.as_bytes()).unwrap();
    assert_eq!(definition.mappings[0].columns.0[0].0, "zeta");
    assert_eq!(serde_json::to_string(&definition).unwrap(), text);
    let value = serde_json::to_value(&definition).unwrap();
    assert_eq!(
        SinkDefinition::from_json(KINDS, &value).unwrap(),
        definition
    );
}

#[test]
fn what_is_mistyped_is_named_with_its_place_and_the_nearest_name() {
    assert_eq!(
        error(r#"{"name":"s","kind":"sqlit","path":"p","mappings":[]}"#),
        "kind: unknown kind of store 'sqlit'; did you mean 'sqlite'?"
    );
    assert_eq!(
        error(&with_mapping(r#"{"table":"t","into":"i","column":{}}"#)),
        "mappings[0].column: unknown field 'column'; did you mean 'columns'?"
    );
    assert_eq!(
        error(&with_mapping(
            r#"{"table":"t","into":"i","columns":{"a":{"from":"/a","type":"reel"}}}"#
        )),
        "mappings[0].columns.a.type: unknown type 'reel'; did you mean 'real'?"
    );
    assert!(
        error(&with_mapping(
            r#"{"table":"t","into":"i","columns":{"a":{"from":"$keys","type":"text"}}}"#
        ))
        .contains("did you mean '$key'?")
    );
}

#[test]
fn what_is_doubled_is_refused() {
    for (text, expected) in [
        (
            with_mapping(r#"{"table":"t","table":"u","into":"i"}"#),
            "'table' occurs twice",
        ),
        (
            with_mapping(r#"{"table":"t","into":"i"},{"table":"u","into":"I"}"#),
            "mappings[1].into: the name 'i' is used by another mapping",
        ),
        (
            with_mapping(
                r#"{"table":"t","into":"i","full_text":["document"]},{"table":"u","into":"i_FTS"}"#,
            ),
            "mappings[1].into",
        ),
        (
            with_mapping(
                r#"{"table":"t","into":"i","columns":{"a":{"from":"/a","type":"text"},"A":{"from":"/b","type":"text"}}}"#,
            ),
            "mappings[0].columns.A",
        ),
        (
            with_mapping(r#"{"table":"t","into":"i","full_text":["a","a"]}"#),
            "full_text[1]",
        ),
    ] {
        assert!(error(&text).contains(expected), "{}", error(&text));
    }
    // Where the store tells names apart by their case, these are two tables.
    let two = r#"{"table":"t","into":"order"},{"table":"u","into":"Order"}"#;
    for kind in [
        r#""kind":"postgres","url":"postgres://me@host/db""#,
        r#""kind":"redis","url":"redis://host""#,
    ] {
        let text = of_kind(kind, two);
        SinkDefinition::from_slice(KINDS, text.as_bytes()).unwrap();
    }
}

#[test]
fn names_that_cannot_be_are_refused() {
    for (text, place) in [
        (
            r#"{"name":"a b","kind":"sqlite","path":"p","mappings":[]}"#.to_owned(),
            "name",
        ),
        (
            r#"{"name":"a","kind":"sqlite","path":"p","mappings":[]}"#.to_owned(),
            "mappings",
        ),
        (
            r#"{"name":"a","kind":"sqlite","path":"","mappings":[]}"#.to_owned(),
            "path",
        ),
        (
            r#"{"name":"a","kind":"sqlite","mappings":[]}"#.to_owned(),
            "path",
        ),
        (
            with_mapping(r#"{"table":"t","into":""}"#),
            "mappings[0].into",
        ),
        (
            with_mapping(r#"{"table":"t","into":"a\u0000b"}"#),
            "mappings[0].into",
        ),
        (
            with_mapping(r#"{"table":"t","into":"onelog_x"}"#),
            "mappings[0].into",
        ),
        (
            with_mapping(r#"{"table":7,"into":"x"}"#),
            "mappings[0].table",
        ),
        (with_mapping("7"), "mappings[0]"),
    ] {
        assert!(
            error(&text).starts_with(&format!("{place}:")),
            "{}",
            error(&text)
        );
    }
    assert!(SinkDefinition::from_json(KINDS, &json!([])).is_err());
}

fn of_kind(kind: &str, mapping: &str) -> String {
    format!(r#"{{"name":"s",{kind},"mappings":[{mapping}]}}"#)
}

#[test]
fn every_kind_is_read_and_written_as_the_same_text_but_for_its_secrets() {
    for kind in [
        r#""kind":"postgres","url":"postgres://me:secret@host:5432/db","schema":"shop","ca_file":"ca.pem""#,
        r#""kind":"mysql","url":"mysql://me:secret@host/db""#,
        r#""kind":"redis","url":"rediss://:secret@host","partitions":256"#,
        r#""kind":"elasticsearch","url":"https://me:secret@host:9200""#,
    ] {
        let text = of_kind(kind, r#"{"table":"t","into":"i"}"#);
        let text = text.replace(
            "}]}",
            r#"}],"on_refused":"park","verify_every":"1h","keep_log":"10GiB","batch_bytes":"1MiB"}"#,
        );
        let definition = SinkDefinition::from_slice(KINDS, text.as_bytes()).unwrap();
        assert_eq!(definition.to_stored().to_string(), text);
        let shown = serde_json::to_string(&definition).unwrap();
        assert_eq!(shown, text.replace("secret", "***"));
        assert!(!format!("{definition:?}").contains("secret"));
    }
}

#[test]
fn a_field_of_another_kind_is_named() {
    let mapping = |more: &str| format!(r#"{{"table":"t","into":"i"{more}}}"#);
    let redis = r#""kind":"redis","url":"redis://h""#;
    for (text, expected) in [
        (
            of_kind(redis, &mapping(r#","existing":true"#)),
            "mappings[0].existing: 'existing' belongs to sinks of the kind postgres and mysql",
        ),
        (
            with_mapping(&mapping(r#","existing":true"#)),
            "choose an 'into' that nothing in the store has",
        ),
        (
            with_mapping(&mapping(r#","ttl_seconds":5"#)),
            "belongs to sinks of the kind redis",
        ),
        (
            of_kind(r#""kind":"redis","url":"http://h""#, &mapping("")),
            "url: an address that starts with 'redis://' or 'rediss://' is needed",
        ),
        (
            of_kind(
                r#""kind":"redis","url":"redis://h","path":"x""#,
                &mapping(""),
            ),
            "path: unknown field 'path'",
        ),
        (
            of_kind(
                r#""kind":"redis","url":"redis://h","partitions":0"#,
                &mapping(""),
            ),
            "partitions: expected a whole number from 1",
        ),
        (
            of_kind(redis, &mapping(r#","as":"lists""#)),
            "mappings[0].as: unknown shape 'lists'",
        ),
        (
            of_kind(redis, &mapping(r#","key":"order""#)),
            "mappings[0].key: a key is made of the record's key",
        ),
        (
            of_kind(redis, &mapping(r#","fields":["a","a"]"#)),
            "mappings[0].fields[1]: this field occurs here twice",
        ),
        (
            of_kind(redis, &mapping(r#","fields":["/a"]"#)),
            "mappings[0].fields[0]: a path needs a new name",
        ),
        (
            of_kind(&format!(r#"{redis},"on_refused":"parc""#), &mapping("")),
            "on_refused: unknown policy 'parc'; did you mean 'park'?",
        ),
        (
            of_kind(&format!(r#"{redis},"verify_every":"often""#), &mapping("")),
            "verify_every: expected a whole number and a unit",
        ),
    ] {
        assert!(error(&text).contains(expected), "{}", error(&text));
    }
}

#[test]
fn types_have_the_names_of_other_databases_too() {
    let column = |kind: &str| {
        let mapping = format!(
            r#"{{"table":"t","into":"i","columns":{{"a":{{"from":"/a","type":"{kind}"}}}}}}"#
        );
        SinkDefinition::from_slice(KINDS, with_mapping(&mapping).as_bytes())
            .map(|definition| definition.mappings[0].columns.0[0].1.kind)
    };
    assert_eq!(column("bigint").unwrap(), ColumnType::Integer);
    assert_eq!(
        column("timestamptz[]").unwrap(),
        ColumnType::List(Element::Timestamp)
    );
    assert_eq!(column("decimal").unwrap().name(), "numeric");
    for wrong in ["json[]", "text[][]", "[]", "bytea[]"] {
        assert!(
            column(wrong)
                .unwrap_err()
                .to_string()
                .contains("unknown type"),
            "{wrong}"
        );
    }
}

#[test]
fn an_address_leads_to_its_kind() {
    let name = |address: &str| KINDS.target(address).unwrap().kind().name();
    assert_eq!(name("rediss://h"), "redis");
    assert_eq!(name("mariadb://h/d"), "mysql");
    assert_eq!(KINDS.target("sqlite://a.db").unwrap().place(), "a.db");
    let error = KINDS.target("ftp://h").unwrap_err();
    assert!(
        error.what.contains("sqlite://, postgres://"),
        "{}",
        error.what
    );
}

#[test]
fn what_each_kind_says_of_itself_is_true() {
    let (mut schemes, mut names) = (BTreeSet::new(), BTreeSet::new());
    for kind in KINDS.iter() {
        let definition = SinkDefinition::from_json(KINDS, &kind.example()).unwrap();
        assert_eq!(definition.target.kind().name(), kind.name());
        let name = definition.name.clone();
        assert!(names.insert(name), "{}: a name twice", kind.name());
        let stored = definition.to_stored();
        assert_eq!(
            SinkDefinition::from_json(KINDS, &stored).unwrap(),
            definition
        );
        for scheme in kind.schemes() {
            assert!(schemes.insert(*scheme), "{scheme}:// leads to two kinds");
        }
        // What an address replaces is a field of the kind, and no field is one of every kind.
        let known: Vec<&str> = kind.fields().iter().map(|rule| rule.name).collect();
        for name in kind.fields_of("").keys() {
            assert!(known.contains(&name.as_str()), "{}: {name}", kind.name());
        }
        let unknown = json!({"kind": kind.name(), "zzzzzzzzzzzzzzzz": 1});
        let known = SinkDefinition::from_json(KINDS, &unknown).unwrap_err().what;
        let (_, known) = known.split_once("known are: ").unwrap();
        let mut fields = BTreeSet::new();
        for field in known.split(", ") {
            assert!(
                fields.insert(field),
                "{}: {field} is there twice",
                kind.name()
            );
        }
    }
}

#[test]
fn definitions_whose_columns_have_another_order_are_not_the_same() {
    let with = |columns: &str| {
        let mapping = format!(r#"{{"table":"t","into":"i","columns":{{{columns}}}}}"#);
        SinkDefinition::from_slice(KINDS, with_mapping(&mapping).as_bytes()).unwrap()
    };
    let (a, b) = (
        r#""a":{"from":"/a","type":"text"}"#,
        r#""b":{"from":"/b","type":"text"}"#,
    );
    assert_eq!(with(&format!("{a},{b}")), with(&format!("{a},{b}")));
    assert_ne!(with(&format!("{a},{b}")), with(&format!("{b},{a}")));
}

use serde_json::json;

use super::*;

fn error(text: &str) -> String {
    SinkDefinition::from_slice(text.as_bytes())
        .unwrap_err()
        .to_string()
}

fn with_mapping(mapping: &str) -> String {
    format!(r#"{{"name":"s","kind":"sqlite","path":"a.db","mappings":[{mapping}]}}"#)
}

#[test]
fn a_definition_is_read_and_written_as_the_same_text() {
    let text = r#"{"name":"search","kind":"sqlite","path":"a.db","mappings":[{"table":"shop.orders","into":"orders","columns":{"zeta":{"from":"/z","type":"json"},"id":{"from":"$key","type":"text"},"total":{"from":"/total","type":"real"},"at":{"from":"$version","type":"integer"}},"full_text":["zeta"]},{"table":"a","into":"b"}]}"#;
    let definition: SinkDefinition = serde_json::from_str(text).unwrap();
    assert_eq!(definition.mappings[0].columns.0[0].0, "zeta");
    assert_eq!(serde_json::to_string(&definition).unwrap(), text);
    let value = serde_json::to_value(&definition).unwrap();
    assert_eq!(
        serde_json::from_value::<SinkDefinition>(value).unwrap(),
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
            "'table' stands twice",
        ),
        (
            with_mapping(r#"{"table":"t","into":"i"},{"table":"u","into":"I"}"#),
            "mappings[1].into",
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
            with_mapping(r#"{"table":"t","into":"SQLite_x"}"#),
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
    assert!(SinkDefinition::from_json(&json!([])).is_err());
}

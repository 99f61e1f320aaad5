use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::JSON_DEPTH_MAX;

fn parsed(text: &str) -> Json<'_> {
    Json::parse(text.as_bytes()).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

#[test]
fn what_is_read_is_written_as_it_was_without_the_spaces() {
    for text in [
        "null",
        "[true,false,[],{}]",
        r#"{"a":1.10,"b":1E+2,"c":-0,"d":-0.0,"e":12345678901234567890123.10}"#,
        r#"{"\u0061":"\u00fc\/","a":2}"#,
    ] {
        assert_eq!(parsed(text).to_string(), text);
    }
    assert_eq!(
        parsed(" { \"a\" : [ 1 ,\n2 ] } ").to_string(),
        r#"{"a":[1,2]}"#
    );
}

#[test]
fn the_first_number_that_would_be_rounded_is_found_with_its_path() {
    for (text, found) in [
        ("[1,1.10,1e3,18446744073709551615]", None),
        ("18446744073709551617", Some(("", "18446744073709551617"))),
        (
            r#"{"a":[0.5,{"b":1}],"c\u002f~":[2,12345678901234567.89],"d":12345678901234567.89}"#,
            Some(("/c~1~0/1", "12345678901234567.89")),
        ),
    ] {
        let json = parsed(text);
        let field = json.rounded_field();
        let field = field
            .as_ref()
            .map(|(path, number)| (path.as_str(), *number));
        assert_eq!(field, found, "{text}");
    }
}

#[test]
fn a_name_with_escapes_is_read_once_for_all_paths() {
    let fields = |inner: &str| format!(r#"{{"\u0061":{inner},"\u0062":2,"plain":3}}"#);
    let text = fields(&fields("1"));
    let names = [
        "a", "b", "/a/a", "/a/b", "plain", "none", "/a/none", "/a/plain",
    ];
    let paths = names.map(|name| FieldPath::parse(name).unwrap());
    let paths: Vec<&FieldPath> = paths.iter().collect();

    let before = ESCAPES_READ.get();
    let found = find(text.as_bytes(), &paths).unwrap();

    assert_eq!(ESCAPES_READ.get() - before, 4);
    let inner = fields("1");
    let expected = [
        Some(inner.as_str()),
        Some("2"),
        Some("1"),
        Some("2"),
        Some("3"),
        None,
        None,
        Some("3"),
    ];
    assert_eq!(found[..names.len()], expected);
}

#[test]
fn a_field_is_found_and_made_by_its_path() {
    let mut document = parsed(r#"{"a":{"b/c":[1,2.50]},"\u0061x":3,"twice":1,"twice":2}"#);
    let at = |document: &Json<'_>, path: &str| {
        let path = FieldPath::parse(path).unwrap();
        document.get(&path).map(ToString::to_string)
    };
    assert_eq!(at(&document, "/a/b~1c/1").as_deref(), Some("2.50"));
    assert_eq!(at(&document, "ax").as_deref(), Some("3"));
    assert_eq!(at(&document, "twice").as_deref(), Some("2"));
    assert_eq!(at(&document, "/a/x"), None);
    assert_eq!(at(&document, "/a/b~1c/9"), None);
    // A place in a list is a number as RFC 6901 has it.
    for path in ["/a/b~1c/01", "/a/b~1c/+1", "/a/b~1c/"] {
        assert_eq!(at(&document, path), None, "{path}");
    }

    let new = FieldPath::parse("/n\"ew/in").unwrap();
    *document.make(&new).unwrap() = Json::Bool(true);
    assert!(document.to_string().ends_with(r#","n\"ew":{"in":true}}"#));
    assert!(
        document
            .make(&FieldPath::parse("/ax/in").unwrap())
            .is_none()
    );
}

#[test]
fn equal_values_share_one_text_and_others_do_not() {
    for (left, right) in [
        (r#"{"a":1,"b":[1.0,-0.0]}"#, r#"{"b":[1,0],"a":1.0}"#),
        ("1e19", "10000000000000000000"),
        ("-9223372036854775808", "-9223372036854775808.0"),
        ("10000000000000000000000001", "10000000000000000000000001.0"),
        (r#""\u00fc""#, r#""ü""#),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
    ] {
        let (left, right) = (parsed(left), parsed(right));
        assert!(left.equals(&right), "{left} {right}");
        assert_eq!(left.canonical(), right.canonical());
    }
    for (left, right) in [
        ("\"1\"", "1"),
        ("null", "\"null\""),
        ("[1]", "[1,1]"),
        ("1.5", "1"),
        ("1e300", "1e301"),
        ("9007199254740993", "9007199254740992.0"),
        ("10000000000000000000000001", "1e25"),
        ("12345678901234567.88", "12345678901234567.89"),
    ] {
        let (left, right) = (parsed(left), parsed(right));
        assert!(!left.equals(&right), "{left} {right}");
        assert_ne!(left.canonical(), right.canonical());
    }
}

#[test]
fn the_deepest_nesting_that_passes_is_the_deepest_that_serde_reads() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deepest = JSON_DEPTH_MAX - 1;
    let text = nested(deepest);
    let value = JsonText::parse(&text).unwrap();
    assert!(value.nests_within(deepest));
    assert!(!value.nests_within(deepest - 1));
    assert!(Json::parse(nested(deepest + 1).as_bytes()).is_err());
    assert!(Json::parse("[".repeat(1_000_000).as_bytes()).is_err());
    assert!(JsonText::parse("1").unwrap().nests_within(0));
}

#[test]
fn what_no_reader_could_hold_is_refused_with_its_place() {
    for (text, what, at) in [
        ("", "no JSON value", 0),
        ("[1,]", "no JSON value", 3),
        ("[1 2]", "neither ',' nor ']'", 3),
        ("{\"a\" 1}", "no ':'", 5),
        ("{1:2}", "no name of a field", 1),
        ("1 2", "more than one value", 2),
        ("01", "no number", 0),
        ("[1e999]", "out of range", 1),
        ("[\"\\ud800\"]", "wrong escape", 1),
        ("\"a\nb\"", "control character", 2),
        ("\"a", "the end inside a string", 2),
    ] {
        let fault = Json::parse(text.as_bytes()).unwrap_err();
        assert!(fault.what.contains(what), "{text}: {fault}");
        assert_eq!(fault.at, at, "{text}");
    }
    assert!(Json::parse(b"\"\xff\"").unwrap_err().what.contains("UTF-8"));
}

/// Paths that lead to values of the document, beside it, or through what is no container.
fn paths_into(document: &Json<'_>, at: &str, out: &mut Vec<FieldPath>) {
    let mut add = |path: &str| out.extend(FieldPath::parse(path));
    add(at);
    add(&format!("{at}/0"));
    add(&format!("{at}/new/in"));
    match document {
        Json::Object(fields) => {
            for (name, field) in fields {
                let step = name.text().replace('~', "~0").replace('/', "~1");
                paths_into(field, &format!("{at}/{step}"), out);
            }
        }
        Json::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                paths_into(item, &format!("{at}/{n}"), out);
            }
        }
        _ => {}
    }
}

/// What is found, and what is made of the document, without a tree and with one.
fn check_against_the_tree(text: &str) {
    let mut paths = Vec::new();
    paths_into(&parsed(text), "", &mut paths);
    for paths in paths.chunks(FOUND_AT_ONCE_MAX) {
        let wanted: Vec<_> = paths.iter().collect();
        let found = find(text.as_bytes(), &wanted).unwrap();
        for (path, found) in paths.iter().zip(found) {
            let document = parsed(text);
            let expected = document.get(path).map(ToString::to_string);
            let found = found.map(|found| Json::found(found).to_string());
            assert_eq!(found, expected, "{path} in {text}");
        }
    }
    for path in &paths {
        let mut document = parsed(text);
        let made = document.make(path);
        let met = made.map(|place| std::mem::replace(place, Json::Bool(true)).to_string());
        let expected = met.map(|met| (met, document.to_string()));
        let place = place(text.as_bytes(), path).unwrap();
        let found = place.map(|place| (place.met().into_owned(), place.put("true")));
        assert_eq!(found, expected, "{path} in {text}");
    }
}

#[test]
fn what_is_found_in_the_text_is_what_the_tree_has() {
    for text in [
        r#"{"a":{"x":1},"a":2}"#,
        r#"{"a":2,"a":{"x":1,"x":[1, {"x" : " a \" b "}]},"b":{}}"#,
        r#" { "\u0061" : [ null , { } , [ ] ] , "b" : null } "#,
        r#"[[1,2,[3]],{"0":{"0":[]}},"01"]"#,
        " null ",
        " 1.10 ",
    ] {
        check_against_the_tree(text);
    }
}

#[test]
fn no_text_is_found_in_what_is_no_json() {
    let path = FieldPath::parse("/a").unwrap();
    for text in [
        r#"{"a":1"#,
        r#"{"a":1} 2"#,
        r#"{"a":1,"b":1e999}"#,
        r#"["\ud800"]"#,
    ] {
        let fault = Json::parse(text.as_bytes()).unwrap_err();
        assert_eq!(find(text.as_bytes(), &[&path]).unwrap_err(), fault);
        assert_eq!(place(text.as_bytes(), &path).unwrap_err(), fault);
        assert_eq!(Json::check(text.as_bytes()).unwrap_err(), fault);
    }
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<u64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        any::<String>().prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(6, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(|items| json!(items)),
            prop::collection::vec((any::<String>(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn documents_are_written_as_they_were_read(document in documents()) {
        let written = document.to_string();
        prop_assert_eq!(parsed(&written).to_string(), written.clone());
        let pretty = serde_json::to_string_pretty(&document).unwrap();
        let again = parsed(&pretty);
        prop_assert_eq!(again.to_string(), written.clone());
        prop_assert!(again.equals(&parsed(&written)));
    }

    #[test]
    fn it_takes_what_serde_takes_and_nothing_else(
        document in documents(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut written = serde_json::to_vec_pretty(&document).unwrap();
        let at = at.index(written.len());
        written[at] = byte;
        let expected = serde_json::from_slice::<Value>(&written);
        let found = Json::parse(&written);
        prop_assert_eq!(found.is_ok(), expected.is_ok(), "{:?} {:?}", found, expected);
        if let (Ok(found), Ok(expected)) = (found, expected) {
            let again: Value = serde_json::from_str(&found.to_string()).unwrap();
            prop_assert_eq!(again, expected);
        }
    }

    #[test]
    fn any_document_is_looked_into_as_its_tree_is(document in documents()) {
        check_against_the_tree(&document.to_string());
        check_against_the_tree(&serde_json::to_string_pretty(&document).unwrap());
    }

    #[test]
    fn numbers_are_those_of_serde(text in "[-+0-9.eE]{0,8}") {
        let expected = serde_json::from_str::<Value>(&text).is_ok();
        prop_assert_eq!(Number::parse(&text).is_ok(), expected, "{}", text);
    }

    #[test]
    fn strings_are_those_of_serde(text in r#""[\\u"dDcCfFeE0-9an/]{0,20}""#) {
        let expected = serde_json::from_str::<String>(&text).ok();
        let found = Json::check(text.as_bytes()).is_ok();
        prop_assert_eq!(found, expected.is_some(), "{}", text);
    }

    #[test]
    fn hostile_texts_do_no_harm(text in r#"[\[\]{}",:0-9eu\\dant.\-]{0,24}"#) {
        let expected = serde_json::from_str::<Value>(&text).is_ok();
        prop_assert_eq!(Json::parse(text.as_bytes()).is_ok(), expected, "{}", text);
        prop_assert_eq!(Json::check(text.as_bytes()).is_ok(), expected, "{}", text);
    }
}

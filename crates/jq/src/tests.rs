mod costs;
mod language;
mod stack;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn compile(text: &str) -> Program {
    Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What the program makes of the record `k` of version 7.
fn run(text: &str, value: &str) -> Result<Option<String>, JqError> {
    let mut out = b"left over".to_vec();
    let found = compile(text).transform(b"k", 7, value.as_bytes(), &mut out)?;
    assert!(found || out.is_empty());
    Ok(found.then(|| String::from_utf8(out).unwrap()))
}

fn result(text: &str, value: &str) -> String {
    match run(text, value) {
        Ok(Some(result)) => result,
        other => panic!("{text} on {value}: {other:?}"),
    }
}

fn limit(text: &str, value: &str) -> Limit {
    match run(text, value) {
        Err(JqError::Limit(limit)) => limit,
        other => panic!("{text}: {other:?}"),
    }
}

fn failure(text: &str, value: &str) -> String {
    match run(text, value) {
        Err(error @ JqError::Failed(_)) => error.to_string(),
        other => panic!("{text}: {other:?}"),
    }
}

fn refused(text: &str) -> String {
    match Program::compile(text) {
        Err(error @ JqError::Program { .. }) => error.to_string(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_program_can_be_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Program>();
}

#[test]
fn a_filter_says_true_or_false_once() {
    let order = br#"{"total": 120, "state": "paid"}"#;
    let test = |text: &str| compile(text).test(b"k", 7, order);
    assert!(test(".total > 100").unwrap());
    assert!(!test(r#".total > 100 and .state == "open""#).unwrap());
    for (text, shown) in [
        (".total", "this one gave 120"),
        (".missing", "this one gave null"),
        ("empty", "this one gave nothing"),
        ("true, false", "this one gave true and more"),
    ] {
        let error = test(text).unwrap_err().to_string();
        assert!(error.contains(shown), "{text}: {error}");
    }
}

#[test]
fn a_transform_gives_one_value_or_none() {
    assert_eq!(
        result(
            "{id, total: (.total * 2)}",
            r#"{"id":"a","total":21,"x":1}"#
        ),
        r#"{"id":"a","total":42}"#
    );
    assert!(run("select(.x)", "{}").unwrap().is_none());
    let error = run(".[]", "[1,2]").unwrap_err();
    assert!(matches!(error, JqError::MoreThanOne(first) if first == "1"));
}

#[test]
fn key_and_version_are_variables() {
    assert_eq!(result("[$key, $version]", "null"), r#"["k",7]"#);
    let mut out = Vec::new();
    let program = compile("[$key, $version]");
    assert!(
        program
            .transform(&[0xff, 0], u64::MAX, b"1", &mut out)
            .unwrap()
    );
    assert_eq!(out, br#"["/wA=",18446744073709551615]"#);
}

#[test]
fn every_listed_function_exists() {
    for function in FUNCTIONS {
        let (name, arguments) = function.split_once('/').unwrap();
        let arguments = vec!["."; arguments.parse().unwrap()].join(";");
        let call = if arguments.is_empty() {
            name.to_owned()
        } else {
            format!("{name}({arguments})")
        };
        compile(&call);
    }
}

#[test]
fn every_listed_function_is_in_the_docs() {
    const PAGE: &str = include_str!("../../../docs/sinks/programs.md");
    let section = PAGE.split("\n## ").find(|s| s.starts_with("Functions"));
    let table: String = section.unwrap().split("\n\n").nth(1).unwrap().to_owned();
    let mut documented: Vec<String> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|call| match call.split_once('(') {
            Some((name, arguments)) => format!("{name}/{}", arguments.matches(';').count() + 1),
            None => format!("{call}/0"),
        })
        .collect();
    documented.sort();
    let mut listed = FUNCTIONS.to_vec();
    listed.sort_unstable();
    assert_eq!(documented, listed);
}

#[test]
fn numbers_that_are_left_alone_pass_unchanged() {
    for number in [
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551616",
        "123456789012345678901234567890",
        "0.10000000000000000000000000001",
        "1.10",
        "1e999",
        "-0",
        "-0.0",
        "1E+2",
    ] {
        assert_eq!(result(".", number), number);
        let document = format!(r#"{{"a":{number}}}"#);
        assert_eq!(result("{a} | {a: .a}", &document), document);
    }
    let digits = "9".repeat(5000);
    assert_eq!(result(".", &digits), digits);
    assert_eq!(
        result(".a + 1", r#"{"a":9223372036854775807}"#),
        "9223372036854775808"
    );
    assert_eq!(
        result(". - 9223372036854775807", "9223372036854775808"),
        "1"
    );
}

#[test]
fn programs_reach_nothing_but_the_record() {
    for text in [
        "env",
        "$ENV",
        "now",
        "input",
        "inputs",
        "input_filename",
        "debug",
        "stderr",
        "halt",
        "halt_error",
        "localtime",
        "path(.)",
        "paths",
        "test(\"a\")",
        "repeat(.)",
    ] {
        let error = refused(text);
        assert!(error.contains("is not offered: "), "{text}: {error}");
    }
    for text in [
        r#"import "a" as $x; ."#,
        r#"import "a" as a; ."#,
        r#"include "a"; ."#,
        "module {}; .",
    ] {
        let error = refused(text);
        assert!(error.contains("there are no modules"), "{text}: {error}");
    }
}

#[test]
fn errors_of_a_program_name_place_and_remedy() {
    for (text, expected) in [
        (
            ".a |\n  lenght",
            "line 2, column 3: unknown function 'lenght'; did you mean 'length'?",
        ),
        (
            "xyzzyx",
            "line 1, column 1: unknown function 'xyzzyx'; docs/sinks/programs.md lists",
        ),
        (
            "map(.; 1)",
            "line 1, column 1: the function 'map' takes 1 arguments, not 2",
        ),
        (
            "1 + $ky",
            "line 1, column 5: unknown variable $ky; a program has $key, $version",
        ),
        (".a ) b", "line 1, column 4: expected token at ') b'"),
        (
            "{a: ",
            "line 1, column 5: expected closing brace at the end",
        ),
        ("", "line 1, column 1: expected term at the end"),
        (".a | | b", "line 1, column 6: expected term at '|'"),
        (
            "def f: f; f",
            "line 1, column 8: the function 'f' calls itself; use while",
        ),
        (
            "def f(g): def h: 1 + f(g); h; f(.)",
            "line 1, column 22: the function 'f' calls itself",
        ),
        (
            "{a: \"\\(def f: [f]; f)\"}",
            "the function 'f' calls itself",
        ),
        ("break $x", "unknown label"),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    let long = " ".repeat(PROGRAM_BYTES_MAX + 1);
    assert!(matches!(
        Program::compile(&long),
        Err(JqError::ProgramTooLong { .. })
    ));
}

#[test]
fn errors_of_a_run_are_short_and_in_the_terms_of_jq() {
    assert!(failure(".a", "[1]").contains(r#"cannot index [1] with "a""#));
    assert!(failure(".[]", "1").contains("cannot use 1 as array or object"));
    assert!(failure("{} + 1", "null").contains("cannot calculate {} + 1"));
    assert!(failure("1 / 0", "null").contains("the divisor is zero"));
    assert!(failure("5 % 0", "null").contains("the divisor is zero"));
    assert!(failure("{(1): 2}", "null").contains("name of a field"));
    for code in [
        "-9223372036854775808",
        "-1",
        "55296",
        "1114112",
        "1e99",
        "null",
    ] {
        let message = failure("implode", &format!("[{code}]"));
        assert!(message.contains("as a character"), "{message}");
    }
    assert!(failure("implode", "1").contains("cannot use 1 as array"));
    assert!(failure(r#"error("no such state")"#, "null").ends_with(": no such state"));
    let long = format!("\"{}\"", "ü".repeat(100_000));
    for text in [".a", "error", "error({a: .})", "tonumber", "fromjson"] {
        assert!(failure(text, &long).len() < 600, "{text}");
    }
}

#[test]
fn results_that_json_cannot_hold_are_refused() {
    for text in ["1e999 + 1", "-(1e999 * 2)", "1e999 - 1e999"] {
        assert!(
            matches!(run(text, "null"), Err(JqError::NotFinite)),
            "{text}"
        );
    }
    let error = run(r#""x" * 2000000"#, "null").unwrap_err();
    assert!(matches!(error, JqError::ResultTooLong { .. }));
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    for (value, expected) in [
        ("", "the end instead of a value at byte 0"),
        ("{\"a\":1,}", "no name of a field at byte 7"),
        ("[1 2]", "neither ',' nor ']' after an element at byte 3"),
        ("01", "a digit after a leading zero at byte 1"),
        ("1 2", "more than one value at byte 2"),
        ("NaN", "no JSON value at byte 0"),
        ("\"\\ud800\"", "half of a surrogate pair"),
    ] {
        let error = run(".", value).unwrap_err().to_string();
        assert!(error.contains(expected), "{value}: {error}");
    }
    let mut out = Vec::new();
    let error = compile(".")
        .transform(b"", 0, b"\"\xff\"", &mut out)
        .unwrap_err();
    assert!(error.to_string().contains("not UTF-8 at byte 1"));
}

#[test]
fn a_number_with_many_leading_zeros_is_json() {
    let zeros = "0".repeat(500);
    for (text, expected) in [("7", "7"), ("", "0"), (".5", "0.5"), ("1.50", "1.50")] {
        assert_eq!(result(&format!("{zeros}{text}"), "null"), expected);
    }
}

#[test]
fn digits_cannot_fill_the_memory() {
    assert!(failure("last(limit(100; recurse(. * .)))", "3").contains("too many digits"));
}

#[test]
fn programs_cannot_exhaust_the_stack() {
    let deep = "reduce range(1e5) as $i (.; [.])";
    assert_eq!(limit(deep, "null"), Limit::Depth);
    let update = "(reduce range(1e5) as $x (.; .)) |= 1";
    assert_eq!(limit(update, "null"), Limit::Stack);
    let path = r#"setpath([range(1e5) | "a"]; 1)"#;
    assert!(matches!(limit(path, "null"), Limit::Stack | Limit::Depth));
    for step in [
        "|.",
        "+1",
        ",.",
        "|not",
        "|[.]|.[]",
        "|-.",
        "|map(.)?",
        " as $x|$x",
    ] {
        let text = format!("1{}", step.repeat(PROGRAM_BYTES_MAX / step.len() - 1));
        // Whatever it gives or fails with, it comes back.
        let _any = run(&text, "null");
    }
    // A loop is not followed as a path, which would be as long as the loop.
    assert!(failure("recurse(.a) |= 1", "null").contains("invalid path"));
    assert!(failure("until(.a; .b) = 1", "null").contains("invalid path"));
}

#[test]
fn programs_that_do_nothing_but_nest_are_read_or_refused() {
    for opening in [
        "(",
        "[",
        "{a:",
        "-",
        "if ",
        "if . then ",
        "try ",
        "\"\\(",
        "def f: ",
        "reduce ",
        ".[",
        "f(",
        "label $x|",
        ". as [",
        ". as {a:",
        "1|",
        "1,",
        "1+",
        "1 as $x|",
        ".a|=",
        "..",
        "#\\\n",
        "1//",
    ] {
        let text = opening.repeat(PROGRAM_BYTES_MAX / opening.len());
        let _error = Program::compile(&text).unwrap_err();
    }
    let nested = "[".repeat(8000) + &"]".repeat(8000);
    assert!(run(&nested, "null").is_err());
    let closed = "(".repeat(8000) + "." + &")".repeat(8000);
    assert!(matches!(run(&closed, "1"), Ok(Some(one)) if one == "1") || run(&closed, "1").is_err());
}

#[test]
fn hostile_records_neither_abort_nor_hang() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(result(".", &nested(127)), nested(127));
    assert!(matches!(run(".", &nested(128)), Err(JqError::Value(_))));
    assert!(matches!(run(".", &nested(500_000)), Err(JqError::Value(_))));
    assert!(matches!(
        run("fromjson", &format!("{:?}", nested(500_000))),
        Err(JqError::Failed(_))
    ));
    assert_eq!(limit("[.]", &nested(127)), Limit::Depth);
    let digits = "9".repeat(1 << 20);
    // The sum is an infinite float.
    assert_eq!(result(". < . + 0", &digits), "true");
    assert!(matches!(run(". * 2", &digits), Err(JqError::NotFinite)));
    let text = format!("\"{}\"", "\\u00fc".repeat((1 << 20) / 6));
    assert_eq!(result("length", &text), ((1 << 20) / 6).to_string());
    let ones = format!("[{}1]", "1,".repeat((1 << 19) - 1));
    assert_eq!(result("map(. + 1) | length", &ones), (1 << 19).to_string());
    let fields: String = (0..50_000).map(|i| format!("\"f{i}\":{i},")).collect();
    let object = format!("{{{fields}\"z\":0}}");
    assert_eq!(result("to_entries | length", &object), "50001");
    assert_eq!(
        result("-. - 9223372036854775807 - 1", "0"),
        "-9223372036854775808"
    );
    assert_eq!(
        result("length", "-9223372036854775808"),
        "9223372036854775808"
    );
}

#[test]
fn a_failed_run_leaves_the_next_one_untouched() {
    let program = compile("if . then until(false; .) else 1 end");
    let mut out = Vec::new();
    for _ in 0..2 {
        assert!(program.transform(b"k", 1, b"true", &mut out).is_err());
        assert!(program.transform(b"k", 1, b"false", &mut out).unwrap());
        assert_eq!(out, b"1");
    }
}

fn documents() -> impl Strategy<Value = serde_json::Value> {
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
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn the_identity_gives_the_same_document(document in documents()) {
        let written = document.to_string();
        prop_assert_eq!(result(".", &written), written.clone());
        prop_assert_eq!(result("tojson | fromjson", &written), written.clone());
        prop_assert_eq!(result("walk(.)", &written), written);
    }

    #[test]
    fn the_reader_takes_what_json_allows_and_nothing_else(
        document in documents(), at in any::<prop::sample::Index>(), byte in prop::num::u8::ANY,
    ) {
        let mut written = serde_json::to_vec_pretty(&document).unwrap();
        let at = at.index(written.len());
        written[at] = byte;
        match serde_json::from_slice::<serde_json::Value>(&written) {
            Ok(expected) => {
                let mut out = Vec::new();
                compile(".").transform(b"", 0, &written, &mut out).unwrap();
                let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
                prop_assert_eq!(read, expected);
            }
            // What is JSON but beyond a float is kept as it is written.
            Err(error) if error.to_string().contains("out of range") => {}
            Err(_) => prop_assert!(json::read(&written).is_err()),
        }
    }

    #[test]
    fn values_are_ordered_totally(a in documents(), b in documents(), c in documents()) {
        let read = |v: &serde_json::Value| json::read(v.to_string().as_bytes()).unwrap();
        let (a, b, c) = (read(&a), read(&b), read(&c));
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert!(a.cmp(&a).is_eq());
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
    }
}

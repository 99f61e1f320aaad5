//! What a run uses is counted where it is used: large parts of a record cost each time.

use super::*;

const TIMES: u64 = 20;

/// What it takes to do the same several times, whether it succeeds or not.
fn used_by(text: &str, value: &str) -> Used {
    let repeated = format!("[range({TIMES}) as $i | try ({text}) catch 0] | length");
    assert!(run(&repeated, value).unwrap().is_some());
    used()
}

#[test]
fn reading_a_long_number_costs_what_its_length_is() {
    let digits = "9".repeat(100_000);
    let steps = TIMES * 100_000 / 64;
    for text in [
        "-.",
        ". + 1",
        ". < 1",
        "1 == .",
        "length",
        "floor",
        "abs",
        "[1][.]",
        "\"\" * .",
        "[.] == [1]",
        "todate",
        "[range(.; 0)]",
    ] {
        let used = used_by(text, &digits);
        assert!(used.steps >= steps, "{text}: {used:?}");
    }
}

#[test]
fn a_long_number_that_is_made_costs_memory() {
    let digits = "9".repeat(100_000);
    let used = used_by("-.", &digits);
    assert!(used.memory_bytes >= TIMES * 100_000, "{used:?}");
    let integer = "9".repeat(400);
    for text in [". + 1", "-."] {
        let used = used_by(text, &integer);
        assert!(used.memory_bytes >= TIMES * 400 * 3 / 8, "{text}: {used:?}");
    }
}

#[test]
fn an_evaluation_that_is_kept_costs_memory() {
    // Each round leaves an iterator behind, which may still give another value.
    for text in [
        ". as $x|(((((until(.; ..)|unique)|abs)|abs)|abs)|abs)",
        "until(.; ., empty)",
        "reduce range(10000000) as $i (.; ..)",
        "reduce range(10000000) as $i (.; ., empty)",
    ] {
        let endless = run(text, "false").unwrap_err();
        assert!(matches!(
            endless,
            JqError::Limit(Limit::Steps | Limit::Memory)
        ));
        assert!(used().memory_bytes >= used().steps * 4, "{:?}", used());
    }
}

#[test]
fn comparing_objects_costs_what_sorting_their_names_costs() {
    let fields: String = (0..10_000).map(|i| format!("\"f{i}\":{i},")).collect();
    let object = format!("{{{fields}\"z\":0}}");
    for text in [
        ". == {a: 1}",
        "{a: 1} < .",
        "[.] == [{a: 1}]",
        "[., {a: 1}] | sort",
    ] {
        let used = used_by(text, &object);
        assert!(used.steps >= TIMES * 10_000, "{text}: {used:?}");
    }
    // To tell an object from other values, its names need not be sorted.
    let alone = used_by(".", &object);
    let used = used_by("type", &object);
    assert!(used.steps < alone.steps + TIMES * 200, "{used:?}");
}

#[test]
fn an_error_shows_the_start_of_a_value_without_writing_all_of_it() {
    let long = "ü".repeat(100_000);
    let digits = "9".repeat(100_000);
    for value in [
        format!("\"{long}\""),
        format!("{{\"{long}\":1}}"),
        format!("[[\"{long}\"]]"),
        digits,
    ] {
        let value = json::read(value.as_bytes()).unwrap();
        let mut shown = Vec::new();
        let written = json::write(&value, &mut shown, 200, NotFinite::Refuse);
        assert_eq!(written, Err(Unwritable::TooLong));
        assert!((200..300).contains(&shown.len()), "{} bytes", shown.len());
    }
}

//! Programs in jq and documents for them, made of arbitrary bytes.
//!
//! Bytes that are changed at random are hardly ever a program; these always read, and most run.

use libfuzzer_sys::arbitrary::{Result as Taken, Unstructured};
use serde_json::{Value, json};

/// How deep programs and documents nest.
const DEPTH_MAX: u32 = 6;
const NAMES: [&str; 4] = ["a", "b", "c", "state"];
const LITERALS: [&str; 24] = [
    ".",
    ".",
    "..",
    "$key",
    "$version",
    "$x",
    "null",
    "true",
    "0",
    "1",
    "-1",
    "2.5",
    "1e3",
    "1e999",
    "9007199254740993",
    "-9223372036854775808",
    "123456789012345678901234567890",
    r#""""#,
    r#""a""#,
    r#""ü,b""#,
    r#""2026-11-22T01:02:03.5Z""#,
    r#"["a",0]"#,
    "{}",
    "[]",
];
const OPERATORS: [&str; 22] = [
    "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or", "//", ",", "|", "=",
    "|=", "+=", "-=", "*=", "//=",
];

/// A program that reads, of the functions `name/arity` and all kinds of terms.
pub fn program(input: &mut Unstructured<'_>, functions: &[&str]) -> Taken<String> {
    Ok(format!(". as $x|{}", term(input, functions, DEPTH_MAX)?))
}

fn term(input: &mut Unstructured<'_>, functions: &[&str], depth: u32) -> Taken<String> {
    if depth == 0 || input.is_empty() {
        return Ok((*input.choose(&LITERALS)?).to_owned());
    }
    let mut part = || term(input, functions, depth - 1);
    let (one, two) = (part()?, part()?);
    let name = *input.choose(&NAMES)?;
    Ok(match input.int_in_range(0..=21)? {
        0..=5 => call(input, functions, one, two, depth)?,
        6..=8 => format!("({one} {} {two})", input.choose(&OPERATORS)?),
        9 => format!("({one}|{two})"),
        10 => format!("(.{name} {} {one})", input.choose(&OPERATORS[16..])?),
        11 => format!("({one}|.{name}[{two}]?)"),
        12 => format!("({one}|.[{two}:])"),
        13 => format!("({one}|.[])"),
        14 => format!("[{one}]"),
        15 => format!("{{{name}: {one}, ({two}): 1}}"),
        16 => format!("(if {one} then {two} else . end)"),
        17 => format!("(try ({one}) catch ({two}))"),
        18 => format!("(reduce {one} as $x (.; {two}))"),
        19 => format!("([foreach {one} as [$x, {{{name}: $y}}] (0; {two}; [., $y])])"),
        20 => format!("(label $l|{one}|., break $l|{two})"),
        _ => format!("(def f(g): {one}|g; f({two}))"),
    })
}

fn call(
    input: &mut Unstructured<'_>,
    functions: &[&str],
    one: String,
    two: String,
    depth: u32,
) -> Taken<String> {
    let (name, arity) = input
        .choose(functions)?
        .split_once('/')
        .expect("functions are listed with their number of arguments");
    Ok(match arity {
        "0" => format!("({one}|{name})"),
        "1" => format!("({one}|{name}({two}))"),
        "2" => format!("{name}({one}; {two})"),
        _ => format!(
            "{name}({one}; {two}; {})",
            term(input, functions, depth - 1)?
        ),
    })
}

pub fn document(input: &mut Unstructured<'_>) -> Taken<Value> {
    value(input, DEPTH_MAX)
}

fn value(input: &mut Unstructured<'_>, depth: u32) -> Taken<Value> {
    let kinds = if depth == 0 { 7 } else { 9 };
    Ok(match input.int_in_range(0..=kinds)? {
        0 => Value::Null,
        1 => json!(input.arbitrary::<bool>()?),
        2 => json!(input.arbitrary::<i8>()?),
        3 => json!(input.arbitrary::<i64>()?),
        4 => json!(input.arbitrary::<u64>()?),
        5 => json!(input.arbitrary::<f64>()?),
        6 => json!(input.arbitrary::<&str>()?),
        7 => json!(input.choose(&NAMES)?),
        8 => {
            let mut items = Vec::new();
            for _ in 0..input.int_in_range(0..=4)? {
                items.push(value(input, depth - 1)?);
            }
            json!(items)
        }
        _ => {
            let mut fields = serde_json::Map::new();
            for name in NAMES {
                if input.arbitrary()? {
                    fields.insert(name.to_owned(), value(input, depth - 1)?);
                }
            }
            Value::Object(fields)
        }
    })
}

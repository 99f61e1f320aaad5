//! TOML read as JSON, so that one reader of definitions serves both, with the way back from a place
//! in a definition (`mappings[0].columns.total`) to the line of the file.

use std::cmp::Ordering;

use onelog_decimal::compare_numbers;
use onelog_record::Quoted;
use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::toml_nesting::too_deep;

/// Something in a TOML text that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub line: usize,
    pub message: String,
}

/// The line of a byte of a text, from 1.
pub fn line_at(text: &str, byte: usize) -> usize {
    let before = &text.as_bytes()[..byte.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

pub fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, Fault> {
    if let Some(place) = too_deep(text) {
        return Err(Fault {
            line: line_at(text, place),
            message: TOO_DEEP.to_owned(),
        });
    }
    DeTable::parse(text).map_err(|error| Fault {
        line: line_at(text, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })
}

/// As many characters of a number are shown.
const NUMBER_SHOWN_MAX: usize = 64;
/// How deep the values of a text may nest.
const NESTING_MAX: usize = 128;
const TOO_DEEP: &str =
    "this nests too deeply, with the parts of its names; the limit is 128 levels";

/// A value as JSON, the fields of a table in the order in which they are written.
pub fn to_json(text: &str, value: &Spanned<DeValue<'_>>) -> Result<Value, Fault> {
    value_to_json(text, "", value, NESTING_MAX)
}

/// `field` is the name of the nearest field that the value is in.
fn value_to_json(
    text: &str,
    field: &str,
    value: &Spanned<DeValue<'_>>,
    levels: usize,
) -> Result<Value, Fault> {
    let fault = |message: &str| {
        Err(Fault {
            line: line_at(text, value.span().start),
            message: message.to_owned(),
        })
    };
    let Some(inside) = levels.checked_sub(1) else {
        return fault(TOO_DEEP);
    };
    Ok(match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::from(number),
            Err(_) => {
                let fits = u64::from_str_radix(number.as_str(), number.radix()).is_ok();
                return fault(&format!(
                    "{} {}",
                    named(text, field, value),
                    too_large(fits)
                ));
            }
        },
        DeValue::Float(number) => {
            let kept = number.as_str().parse().ok().and_then(Number::from_f64);
            let Some(kept) = kept else {
                return fault("this is no number that JSON has");
            };
            let written = number.as_str().trim_start_matches('+');
            if !compare_numbers(&kept.to_string(), written).is_some_and(Ordering::is_eq) {
                return fault(&format!(
                    "{} would be rounded to {kept}; write it with fewer digits",
                    named(text, field, value)
                ));
            }
            Value::Number(kept)
        }
        DeValue::Datetime(_) => return fault("this is a date; write it as a text, in quotes"),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| value_to_json(text, field, item, inside))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => Value::Object(fields_to_json(text, table, inside)?),
    })
}

/// A number as it is written, and the field that it is in.
fn named(text: &str, field: &str, value: &Spanned<DeValue<'_>>) -> String {
    let written = text.get(value.span()).unwrap_or_default();
    let shown: String = written.chars().take(NUMBER_SHOWN_MAX).collect();
    format!("the number {shown} of '{}'", Quoted(field))
}

/// Why a whole number is refused, and what helps; `fits`: it is one of 64 bits without a sign.
const fn too_large(fits: bool) -> &'static str {
    match fits {
        true => {
            "is larger than TOML allows (9223372036854775807); a definition in JSON takes it, from a \
             file (for a schema: `onelog tables create --schema FILE`) or over HTTP"
        }
        false => {
            "does not fit 64 bits; write it with fewer digits, or with an exponent where it is round \
             (1e25)"
        }
    }
}

/// A table as a JSON object.
pub fn table_to_json(text: &str, table: &DeTable<'_>) -> Result<Map<String, Value>, Fault> {
    fields_to_json(text, table, NESTING_MAX)
}

fn fields_to_json(
    text: &str,
    table: &DeTable<'_>,
    levels: usize,
) -> Result<Map<String, Value>, Fault> {
    let mut fields: Vec<_> = table.iter().collect();
    fields.sort_by_key(|(name, _)| name.span().start);
    fields
        .into_iter()
        .map(|(name, value)| {
            Ok((
                name.get_ref().to_string(),
                value_to_json(text, name.get_ref(), value, levels)?,
            ))
        })
        .collect()
}

/// The line of a place inside a value: the nearest thing around it that is in the text.
pub fn line_of_place(text: &str, value: &Spanned<DeValue<'_>>, place: &str) -> usize {
    line_at(text, descend(value.span().start, value.get_ref(), place))
}

/// The same inside a whole document.
pub fn line_in_document(text: &str, table: &DeTable<'_>, place: &str) -> usize {
    let start = longest_name(table, place).map(|(start, value, rest)| descend(start, value, rest));
    line_at(text, start.unwrap_or(0))
}

fn descend(mut found: usize, mut value: &DeValue<'_>, mut rest: &str) -> usize {
    loop {
        rest = rest.trim_start_matches('.');
        let next = match value {
            DeValue::Table(table) => longest_name(table, rest),
            DeValue::Array(items) => {
                let inside = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                inside.and_then(|(number, rest)| {
                    let item = items.get(number.parse::<usize>().ok()?)?;
                    Some((item.span().start, item.get_ref(), rest))
                })
            }
            _ => None,
        };
        let Some((start, inner, left)) = next else {
            return found;
        };
        (found, value, rest) = (start, inner, left);
    }
}

/// The field with the longest name that `place` begins with: names may hold dots.
fn longest_name<'d, 't, 'p>(
    table: &'d DeTable<'t>,
    place: &'p str,
) -> Option<(usize, &'d DeValue<'t>, &'p str)> {
    table
        .iter()
        .filter_map(|(name, value)| {
            let rest = place.strip_prefix(name.get_ref().as_ref())?;
            let whole = rest.is_empty() || rest.starts_with(['.', '[']);
            whole.then(|| (name.span().start, value.get_ref(), rest))
        })
        .min_by_key(|(_, _, rest)| rest.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = r#"
[[sinks]]
name = "one"
[[sinks.mappings]]
table = "a.b"
columns.zulu = { from = "$key", type = "text" }
columns."a.b" = { from = "/x",
  type = "real" }
"#;

    fn sinks(text: &str) -> Value {
        let table = parse(text).unwrap();
        Value::Object(table_to_json(text, table.get_ref()).unwrap())["sinks"].clone()
    }

    #[test]
    fn fields_keep_the_order_in_which_they_are_written() {
        let columns = sinks(TEXT)[0]["mappings"][0]["columns"].clone();
        let names: Vec<_> = columns.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["zulu", "a.b"]);
        assert_eq!(columns["a.b"], json!({"from": "/x", "type": "real"}));
    }

    #[test]
    fn a_place_in_a_definition_has_its_line_in_the_text() {
        let table = parse(TEXT).unwrap();
        let (_, list) = table.get_ref().iter().next().unwrap();
        let DeValue::Array(items) = list.get_ref() else {
            panic!()
        };
        let line = |place: &str| line_of_place(TEXT, &items[0], place);
        assert_eq!(line("name"), 3);
        assert_eq!(line("mappings[0].table"), 5);
        assert_eq!(line("mappings[0].columns.zulu.type"), 6);
        assert_eq!(line("mappings[0].columns.a.b.type"), 8);
        // What is missing is reported at the nearest thing around it.
        assert_eq!(line("kind"), 2);
        assert_eq!(line("mappings[0].into"), 4);
    }

    #[test]
    fn what_json_does_not_have_is_refused_with_its_line() {
        for (text, line) in [("a = 1\nb = 1979-05-27", 2), ("b = inf", 1)] {
            let table = parse(text).unwrap();
            assert_eq!(table_to_json(text, table.get_ref()).unwrap_err().line, line);
        }
        assert_eq!(parse("a = 1\na = 2").unwrap_err().line, 2);
        let text = "n = 0x1F\nf = 1.5";
        let table = parse(text).unwrap();
        assert_eq!(
            Value::Object(table_to_json(text, table.get_ref()).unwrap()),
            json!({"n": 31, "f": 1.5})
        );
    }

    #[test]
    fn a_number_that_would_be_rounded_is_refused_with_its_line_and_its_name() {
        for (number, shown) in [
            ("12345678901234567.89", "rounded to 1.2345678901234568e+16"),
            ("0.1234567890123456789", "rounded to 0.12345678901234568"),
            ("1e-400", "rounded to 0.0"),
            ("9_007_199_254_740_993.0", "rounded to 9007199254740992.0"),
            ("9223372036854775808", "JSON"),
            ("100000000000000000000000000", "64 bits"),
            ("0xffffffffffffffff", "JSON"),
        ] {
            let text = format!(
                "[[tables]]\nname = \"t\"\nschema = {{ properties = {{\n  total = {{ enum = [1.5, {number}] }} }} }}"
            );
            let table = parse(&text).unwrap();

            let fault = table_to_json(&text, table.get_ref()).unwrap_err();

            assert_eq!(fault.line, 4, "{fault:?}");
            for part in [number, "'enum'", shown] {
                assert!(fault.message.contains(part), "{part}: {fault:?}");
            }
        }
    }

    #[test]
    fn a_number_that_is_kept_exactly_is_taken_however_it_is_written() {
        let text = "n = [1.10, +1.5, -0.0, 1e25, 1_000.5, 0.1, 5e-324, 9223372036854775807]";
        let table = parse(text).unwrap();
        assert_eq!(
            Value::Object(table_to_json(text, table.get_ref()).unwrap()),
            json!({"n": [1.1, 1.5, -0.0, 1e25, 1000.5, 0.1, 5e-324, i64::MAX]})
        );
    }

    #[test]
    fn names_of_many_parts_inside_one_another_nest_only_so_deep() {
        let nested = |parts: usize, tables: usize| {
            let name = vec!["a"; parts].join(".");
            format!("{name} = {{ ").repeat(tables) + "a = 1" + &" }".repeat(tables)
        };
        let read = |text: &str| table_to_json(text, parse(text)?.get_ref());
        assert!(read(&nested(60, 2)).is_ok());
        let fault = read(&nested(60, 3)).unwrap_err();
        assert!(fault.message.contains("128 levels"), "{fault:?}");
        // The library alone would take apart what this has in it on the stack, level by level.
        let fault = read(&format!("a = 1\n{}", nested(79, 78))).unwrap_err();
        assert_eq!(fault.line, 2);
        assert!(fault.message.contains("128 levels"), "{fault:?}");
    }
}

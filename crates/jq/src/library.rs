//! The functions that programs may use: a chosen list, all of them pure.
//!
//! The interpreter's own collections are not taken whole, since they can read the environment and
//! the clock, write to standard error and end the process. Paths as values (`path(f)`, `paths`,
//! `pick`) are left out because the interpreter keeps a path as a list that is dropped
//! recursively, which no limit of ours can reach.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jaq_core::data::HasLut;
use jaq_core::load::parse::Def;
use jaq_core::native::{Filter, Fun, bome, run, unary, v};
use jaq_core::{DataT, Error as CoreError, Lut, RunPtr};
use jaq_json::Num;

use super::arithmetic::{Error, ValR};
use super::json;
use super::meter;
use super::moment::{SECOND_NANOS, moment_text, parse_moment, parse_seconds, seconds_text};
use super::value::{Value, as_float};

/// What programs run on.
pub(super) struct Kind;

impl DataT for Kind {
    type V<'a> = Value;
    type Data<'a> = Terms<'a>;
}

/// The compiled terms; each look at them is an evaluation, which is how evaluations are counted.
pub(super) struct Terms<'a>(pub(super) &'a Lut<Kind>);

impl Clone for Terms<'_> {
    fn clone(&self) -> Self {
        meter::step(1);
        Self(self.0)
    }
}

impl<'a> HasLut<'a, Kind> for Terms<'a> {
    fn lut(&self) -> &'a Lut<Kind> {
        meter::evaluate();
        self.0
    }
}

/// Every function that a program may call, with the number of its arguments.
pub const FUNCTIONS: &[&str] = &[
    "abs/0",
    "add/0",
    "add/1",
    "all/0",
    "all/1",
    "all/2",
    "any/0",
    "any/1",
    "any/2",
    "arrays/0",
    "ascii_downcase/0",
    "ascii_upcase/0",
    "booleans/0",
    "ceil/0",
    "contains/1",
    "del/1",
    "delpaths/1",
    "empty/0",
    "endswith/1",
    "error/0",
    "error/1",
    "explode/0",
    "false/0",
    "first/0",
    "first/1",
    "flatten/0",
    "flatten/1",
    "floor/0",
    "from_entries/0",
    "fromdate/0",
    "fromjson/0",
    "getpath/1",
    "group_by/1",
    "has/1",
    "implode/0",
    "in/1",
    "index/1",
    "indices/1",
    "inside/1",
    "isempty/1",
    "iterables/0",
    "join/1",
    "keys/0",
    "keys_unsorted/0",
    "last/0",
    "last/1",
    "length/0",
    "limit/2",
    "ltrim/0",
    "ltrimstr/1",
    "map/1",
    "map_values/1",
    "max/0",
    "max_by/1",
    "min/0",
    "min_by/1",
    "not/0",
    "nth/1",
    "nth/2",
    "null/0",
    "nulls/0",
    "numbers/0",
    "objects/0",
    "range/1",
    "range/2",
    "range/3",
    "recurse/0",
    "recurse/1",
    "recurse/2",
    "reverse/0",
    "rindex/1",
    "round/0",
    "rtrim/0",
    "rtrimstr/1",
    "scalars/0",
    "select/1",
    "setpath/2",
    "skip/2",
    "sort/0",
    "sort_by/1",
    "split/1",
    "startswith/1",
    "strings/0",
    "to_entries/0",
    "toboolean/0",
    "todate/0",
    "tojson/0",
    "tonumber/0",
    "tostring/0",
    "transpose/0",
    "trim/0",
    "true/0",
    "type/0",
    "unique/0",
    "unique_by/1",
    "until/2",
    "utf8bytelength/0",
    "values/0",
    "walk/1",
    "while/2",
    "with_entries/1",
    "@base64/0",
    "@base64d/0",
    "@json/0",
    "@text/0",
    "@uri/0",
];

/// Functions that the ones above are made of; not meant for programs, and harmless in them.
const INNER: &[&str] = &[
    "counted/0",
    "decode_base64/0",
    "encode_base64/0",
    "encode_uri/0",
    "error_empty/0",
    "isarray/0",
    "isboolean/0",
    "isnumber/0",
    "isobject/0",
    "isstring/0",
    "key_values/0",
    "max_by_or_empty/1",
    "min_by_or_empty/1",
];

/// Functions that programs may not use though jq has them, and why.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &[
            "env",
            "now",
            "localtime",
            "strflocaltime",
            "input",
            "inputs",
            "debug",
            "stderr",
            "halt",
            "halt_error",
            "input_filename",
            "input_line_number",
            "input_line_number",
            "$ENV",
            "$__prog_args",
            "get_search_list",
            "modulemeta",
        ],
        "a program may depend on nothing but the record, and do nothing but compute",
    ),
    (
        &[
            "test", "match", "capture", "scan", "splits", "sub", "gsub", "ascii",
        ],
        "regular expressions are not offered; startswith, endswith, contains, index, split and \
         ltrimstr are",
    ),
    (
        &[
            "path",
            "paths",
            "leaf_paths",
            "pick",
            "tostream",
            "fromstream",
            "truncate_stream",
        ],
        "paths as values are not offered; getpath, setpath, delpaths, del and to_entries are",
    ),
    (
        &["repeat"],
        "it never ends; while, until, recurse, limit and range are offered",
    ),
];

/// Why jq's function of this name is not offered, where there is a reason.
pub(super) fn refusal(name: &str) -> Option<&'static str> {
    REFUSED
        .iter()
        .find(|(names, _)| names.contains(&name))
        .map(|(_, reason)| *reason)
}

/// Loops may run long, so that they must not stand where the interpreter would follow their path:
/// `counted` is a wall for paths.
const LOOPS: &str = r#"
def recurse: ..;
def recurse(f): def next: ., (f | next); counted | next;
def recurse(f; condition): recurse(f | select(condition));
def while(condition; update):
  def next: if condition then ., (update | next) else empty end;
  counted | next;
def until(condition; update):
  def next: if condition then . else update | next end;
  counted | next;
"#;

const CONVERSIONS: &str = r#"
def toboolean:
  if isboolean then . elif . == "true" then true elif . == "false" then false
  else error("\(tojson) cannot be read as a boolean") end;
def @base64: tostring | encode_base64;
def @base64d: tostring | decode_base64;
def @uri: tostring | encode_uri;
"#;

fn is_listed(name: &str, arguments: usize) -> bool {
    let signature = format!("{name}/{arguments}");
    FUNCTIONS.contains(&signature.as_str()) || INNER.contains(&signature.as_str())
}

/// The listed functions that are written in jq; each sees the ones before it.
pub(super) fn definitions() -> Vec<Def<&'static str>> {
    let parse = |text| jaq_core::load::parse(text, |parser| parser.defs()).unwrap_or_default();
    let (loops, conversions): (Vec<Def<_>>, Vec<Def<_>>) = (parse(LOOPS), parse(CONVERSIONS));
    let natives: Vec<_> = natives().into_iter().map(|(name, ..)| name).collect();
    let is_replaced = |def: &Def<&str>| {
        let same = |own: &Def<&str>| own.name == def.name && own.args.len() == def.args.len();
        natives.contains(&def.name) || loops.iter().chain(&conversions).any(same)
    };
    let chosen = |def: &Def<&str>| is_listed(def.name, def.args.len()) && !is_replaced(def);
    let core: Vec<_> = jaq_core::defs().filter(chosen).collect();
    let other: Vec<_> = jaq_std::defs()
        .chain(jaq_json::defs())
        .filter(chosen)
        .collect();
    let parts = [core, loops, other, conversions];
    parts.into_iter().flatten().collect()
}

/// The listed functions that are written in Rust.
pub(super) fn functions() -> Vec<Fun<Kind>> {
    let natives = natives();
    let is_replaced = |name: &str| natives.iter().any(|(own, ..)| *own == name);
    let theirs: Vec<Fun<Kind>> = jaq_core::funs::<Kind>()
        .chain(jaq_std::base_funs::<Kind>())
        .filter(|(name, arguments, _)| is_listed(name, arguments.len()) && !is_replaced(name))
        .collect();
    let own = natives.into_iter().map(run::<Kind>);
    theirs.into_iter().chain(own).collect()
}

fn natives() -> Vec<Filter<RunPtr<Kind>>> {
    vec![
        ("counted", v(0), |cv| bome(Ok(cv.1))),
        ("length", v(0), |cv| bome(length(cv.1))),
        ("has", v(1), |cv| {
            unary(cv, |whole, index| has(&whole, &index))
        }),
        ("contains", v(1), |cv| unary(cv, contains)),
        ("indices", v(1), |cv| unary(cv, indices)),
        ("join", v(1), |cv| {
            unary(cv, |parts, separator| join(&parts, &separator))
        }),
        ("tojson", v(0), |cv| bome(Ok(cv.1.written()))),
        ("fromjson", v(0), |cv| bome(from_json(cv.1))),
        ("tonumber", v(0), |cv| bome(to_number(cv.1))),
        ("implode", v(0), |cv| bome(implode(cv.1))),
        ("fromdate", v(0), |cv| bome(from_date(cv.1))),
        ("todate", v(0), |cv| bome(to_date(cv.1))),
        ("encode_base64", v(0), |cv| {
            bome(on_text(cv.1, |text| Ok(STANDARD.encode(text))))
        }),
        ("decode_base64", v(0), |cv| {
            bome(on_text(cv.1, decode_base64))
        }),
        ("encode_uri", v(0), |cv| {
            bome(on_text(cv.1, |text| Ok(encode_uri(text))))
        }),
    ]
}

fn length(value: Value) -> ValR {
    match value {
        Value::Null => Ok(Value::from(0_usize)),
        Value::Number(number) if as_float(&number) < 0.0 => -Value::Number(number),
        Value::Number(_) => Ok(value),
        Value::Text(text) => {
            meter::read(text.len());
            Ok(Value::from(text.chars().count()))
        }
        Value::Array(array) => Ok(Value::from(array.items().len())),
        Value::Object(object) => Ok(Value::from(object.fields().len())),
        Value::Bool(_) => Err(CoreError::str(format_args!("{value} has no length"))),
    }
}

fn has(whole: &Value, index: &Value) -> ValR {
    match (whole, index) {
        (Value::Object(object), Value::Text(name)) => Ok(Value::from(object.get(name).is_some())),
        (Value::Array(array), Value::Number(_)) => {
            let at = index.as_index().and_then(|at| usize::try_from(at).ok());
            Ok(Value::from(at.is_some_and(|at| at < array.items().len())))
        }
        _ => Err(Error::index(whole.clone(), index.clone())),
    }
}

fn contains(whole: Value, part: Value) -> ValR {
    if whole.kind() != part.kind() {
        return Err(CoreError::str(format_args!(
            "{whole} and {part} cannot be checked for one containing the other"
        )));
    }
    Ok(Value::from(contains_part(&whole, &part)))
}

fn contains_part(whole: &Value, part: &Value) -> bool {
    meter::evaluate();
    match (whole, part) {
        (Value::Text(whole), Value::Text(part)) => {
            meter::read(whole.len());
            whole.contains(part.as_str())
        }
        (Value::Array(whole), Value::Array(parts)) => parts
            .items()
            .iter()
            .all(|part| whole.items().iter().any(|item| contains_part(item, part))),
        (Value::Object(whole), Value::Object(parts)) => {
            parts.fields().iter().all(|(name, part)| {
                whole
                    .get(name)
                    .is_some_and(|item| contains_part(item, part))
            })
        }
        _ => whole == part,
    }
}

/// The indices of the part: characters of a string, items of an array.
fn indices(whole: Value, part: Value) -> ValR {
    match (&whole, &part) {
        (Value::Null, _) => Ok(Value::Null),
        (Value::Text(text), Value::Text(part)) => {
            if part.is_empty() {
                return Ok(Value::Null);
            }
            meter::read(text.len());
            let mut found = Vec::new();
            for (character, (at, _)) in text.char_indices().enumerate() {
                meter::read(part.len());
                if text.as_bytes()[at..].starts_with(part.as_bytes()) {
                    found.push(Value::from(character));
                }
            }
            Ok(found.into_iter().collect())
        }
        (Value::Array(_), Value::Array(_)) => jaq_core::ValT::index(whole, &part),
        (Value::Array(array), _) => {
            let items = array.items().iter().enumerate();
            let found = items.filter(|(_, item)| **item == part);
            Ok(found.map(|(i, _)| Value::from(i)).collect())
        }
        _ => Err(Error::index(whole, part)),
    }
}

fn join(parts: &Value, separator: &Value) -> ValR {
    let (Value::Array(parts), Value::Text(separator)) = (parts, separator) else {
        return Err(CoreError::str(format_args!(
            "join needs an array and a string, not {parts} and {separator}"
        )));
    };
    let mut joined = String::new();
    for (i, part) in parts.items().iter().enumerate() {
        let before = joined.len();
        if i > 0 {
            joined.push_str(separator);
        }
        match part {
            Value::Null => {}
            Value::Text(text) => joined.push_str(text),
            Value::Bool(_) | Value::Number(_) => joined.push_str(&text_of(part)),
            other => return Err(Error::typ(other.clone(), "part of a joined string")),
        }
        meter::allocate(1 + joined.len() - before);
    }
    Ok(Value::text(joined))
}

fn text_of(value: &Value) -> String {
    match value.written() {
        Value::Text(text) => (*text).clone(),
        _ => String::new(),
    }
}

fn implode(value: Value) -> ValR {
    let Value::Array(codes) = &value else {
        return Err(Error::typ(value, "array"));
    };
    let character = |code: &Value| {
        meter::step(1);
        code.as_index()
            .and_then(|code| u32::try_from(code).ok())
            .and_then(char::from_u32)
            .ok_or_else(|| Error::str(format_args!("cannot use {code} as a character")))
    };
    let text: Result<String, Error> = codes.items().iter().map(character).collect();
    text.map(Value::text)
}

fn on_text(value: Value, f: impl Fn(&str) -> Result<String, Error>) -> ValR {
    match &value {
        Value::Text(text) => {
            meter::allocate(text.len());
            f(text).map(Value::text)
        }
        _ => Err(Error::typ(value, "string")),
    }
}

fn from_json(value: Value) -> ValR {
    match &value {
        Value::Text(text) => {
            meter::read(text.len());
            json::read(text.as_bytes())
                .map_err(|problem| CoreError::str(format_args!("{value} is not JSON: {problem}")))
        }
        _ => Err(Error::typ(value, "string")),
    }
}

fn to_number(value: Value) -> ValR {
    match &value {
        Value::Number(_) => return Ok(value),
        Value::Text(text) => {
            meter::read(text.len());
            if let Ok(number @ Value::Number(_)) = json::read(text.trim().as_bytes()) {
                return Ok(number);
            }
        }
        _ => {}
    }
    Err(CoreError::str(format_args!(
        "{value} cannot be read as a number"
    )))
}

fn from_date(value: Value) -> ValR {
    let Value::Text(text) = &value else {
        return Err(Error::typ(value, "date (a string)"));
    };
    meter::read(text.len());
    let nanos = parse_moment(text).ok_or_else(|| {
        CoreError::str(format_args!(
            "{value} is no moment of the years 1 to 9999 with an offset (RFC 3339)"
        ))
    })?;
    // Not a float, which has too few digits.
    Ok(Value::number(&seconds_text(nanos)))
}

fn to_date(value: Value) -> ValR {
    let Value::Number(number) = &value else {
        return Err(Error::typ(value, "time (a number of seconds)"));
    };
    let nanos = match number {
        Num::Int(seconds) => (*seconds as i128).checked_mul(SECOND_NANOS),
        other => {
            // All calendars are far within this.
            let float = Some(as_float(other)).filter(|float| float.abs() < 1e15);
            float.and_then(|float| match other {
                Num::Dec(written) if !written.contains(['e', 'E']) => parse_seconds(written),
                // With the fewest digits by which it is read back.
                _ => parse_seconds(&float.to_string()),
            })
        }
    };
    nanos
        .and_then(moment_text)
        .map(Value::text)
        .ok_or_else(|| CoreError::str(format_args!("{value} is beyond the calendar")))
}

fn decode_base64(text: &str) -> Result<String, Error> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|problem| CoreError::str(format_args!("not base64: {problem}")))?;
    String::from_utf8(bytes).map_err(|_| CoreError::str("the base64 text holds no UTF-8"))
}

/// All but the unreserved characters in percent form.
fn encode_uri(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded
                .extend([byte >> 4, byte & 0xf].map(|digit| char::from(HEX[usize::from(digit)])));
        }
    }
    encoded
}

//! `onelog status`.

use onelog_command::{CommandError, Context, units};
use onelog_terminal::{Out, bold, thousands};
use serde_json::Value;

use super::{cluster, sinks};
use crate::wire::shown;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: &Args, context: &Context) -> Result<(), CommandError> {
    let status = context.client()?.get("/v1/status", &[])?;
    let mut out = Out::new();
    if context.json {
        out.json(&status)?;
        return Ok(out.flush()?);
    }
    let Value::Object(fields) = &status else {
        return Err(CommandError::Failed(
            "the status is not an object".to_owned(),
        ));
    };
    let width = widest(fields);
    for (name, value) in fields {
        match value {
            Value::Object(_) if name == "cluster" => {
                out.line(&bold("cluster"))?;
                out.line(&format!("  {}", cluster::summary(value)))?;
            }
            Value::Object(inner) => {
                out.line(&bold(&name.replace('_', " ")))?;
                let width = widest(inner);
                for (name, value) in inner {
                    out.line(&format!("  {:width$}  {}", label(name), show(name, value)))?;
                }
            }
            Value::Array(list) if name == "sinks" => {
                if !list.is_empty() {
                    out.line(&bold("sinks"))?;
                    sinks::print_list(list, &mut out)?;
                }
            }
            _ => out.line(&format!("{:width$}  {}", label(name), show(name, value)))?,
        }
    }
    Ok(out.flush()?)
}

fn widest(fields: &serde_json::Map<String, Value>) -> usize {
    let plain = fields
        .iter()
        .filter(|(_, value)| !value.is_object() && !value.is_array());
    plain.map(|(name, _)| label(name).len()).max().unwrap_or(0)
}

/// A field's name without its unit, which `show` writes behind the number.
fn label(name: &str) -> String {
    let plain = ["_bytes_max", "_ms_max"]
        .iter()
        .find_map(|unit| name.strip_suffix(unit).map(|name| format!("{name}_max")))
        .or_else(|| {
            ["_bytes", "_ms", "_s"]
                .iter()
                .find_map(|unit| name.strip_suffix(unit).map(str::to_owned))
        });
    plain.unwrap_or_else(|| name.to_owned()).replace('_', " ")
}

fn show(name: &str, value: &Value) -> String {
    let unit = name.trim_end_matches("_max");
    match (value.as_u64(), value) {
        (Some(bytes), _) if unit.ends_with("_bytes") => units::size(bytes),
        (Some(ms), _) if unit.ends_with("_ms") && ms % 1_000 == 0 => units::duration(ms / 1_000),
        (Some(ms), _) if unit.ends_with("_ms") => format!("{ms} ms"),
        (Some(seconds), _) if unit.ends_with("_s") => units::duration(seconds),
        (Some(number), _) => thousands(number),
        (None, Value::Null) => "-".to_owned(),
        (None, other) => shown(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_shown_with_the_unit_of_their_name() {
        for (name, value, expected) in [
            (
                "memtable_bytes_max",
                json!(1 << 20),
                ("memtable max", "1 MiB"),
            ),
            ("uptime_s", json!(61), ("uptime", "1 min 1 s")),
            (
                "checkpoint_interval_ms",
                json!(30_000),
                ("checkpoint interval", "30 s"),
            ),
            ("position", json!(12345), ("position", "12,345")),
            ("retain_bytes", json!(null), ("retain", "-")),
            ("version", json!("0.1.0"), ("version", "0.1.0")),
        ] {
            assert_eq!(
                (label(name).as_str(), show(name, &value).as_str()),
                expected
            );
        }
    }
}

//! What the server says of sinks, for people.

use std::io;

use onelog_client::Part;
use onelog_command::units::size;
use onelog_terminal::{Out, Table, cell, counted, thousands};
use serde_json::Value;

use super::Exact;
use crate::commands::tables::list_of;
use crate::wire::{shown, written};

const CELL_CHARS_MAX: usize = 80;

/// Prints sinks as the server lists them.
pub fn list(list: &[Value], out: &mut Out) -> io::Result<()> {
    let mut table = Table::new(&[
        "sink",
        "kind",
        "state",
        ">position",
        ">behind",
        ">records/s",
        "verified",
        ">parked",
        ">log held",
        "last error",
    ]);
    for sink in list {
        let number = |name: &str| match sink[name].as_f64() {
            Some(number) => thousands(number.max(0.0).round() as u64),
            None => "-".to_owned(),
        };
        let error = match &sink["last_error"] {
            Value::Null => "-".to_owned(),
            other => cell(&dated_error(other), CELL_CHARS_MAX),
        };
        let held = match (sink["left_behind"] == true, sink["held_log_bytes"].as_u64()) {
            (true, _) => "left behind".to_owned(),
            (false, Some(bytes)) => size(bytes),
            (false, None) => "-".to_owned(),
        };
        table.row([
            shown(&sink["name"]),
            shown(&sink["kind"]),
            state(sink),
            number("position"),
            number("lag_records"),
            number("records_per_second"),
            last_verification(&sink["last_verification"]),
            number("parked"),
            held,
            error,
        ]);
    }
    table.print(out)
}

/// What it is doing; where another node runs it, or is to run it, which one.
fn state(sink: &Value) -> String {
    if sink["state"] != "elsewhere" {
        return shown(&sink["state"]);
    }
    match (sink["runs_on"].as_u64(), sink["waits_for"].as_u64()) {
        (Some(node), _) => format!("on node {node}"),
        (None, Some(node)) => format!("waits for node {node}"),
        (None, None) => "on no node".to_owned(),
    }
}

fn last_verification(found: &Value) -> String {
    let position = thousands(found["position"].as_u64().unwrap_or_default());
    match found["equal"].as_bool() {
        None => "-".to_owned(),
        Some(true) => format!("equal at {position}"),
        Some(false) => {
            let differing = found["differences_total"].as_u64().unwrap_or_default();
            format!("{} DIFFER at {position}", thousands(differing))
        }
    }
}

fn error_text(error: &Value) -> String {
    let text = error.get("what").or_else(|| error.get("message"));
    text.map_or_else(|| shown(error), shown)
}

/// What a field has, unless it is `null`.
fn field(part: Part<'_>, name: &str) -> Option<String> {
    let found = part.get(name)?;
    (found.text() != "null").then(|| written(found))
}

/// When it was, whether it is over, and what.
fn dated_error(error: &Value) -> String {
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    let when = match error["at_ms"].as_u64() {
        Some(at_ms) => format!("{} ago", age(now_ms.saturating_sub(at_ms) / 1000)),
        None => "at an unknown time".to_owned(),
    };
    let over = if error["over_at_ms"].is_u64() {
        ", over"
    } else {
        ""
    };
    format!("{when}{over}: {}", error_text(error))
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Prints what a verification found.
pub fn verification(answer: &Exact, equal: bool, out: &mut Out) -> io::Result<()> {
    let (answer, parts) = (&answer.value, answer.parts());
    let repaired = answer["repaired"].as_u64();
    let titles: &[&'static str] = match repaired {
        None => &["table", "into", ">rows", ">in the store", "equal"],
        Some(_) => &[
            "table",
            "into",
            ">rows",
            ">in the store",
            "equal",
            ">repaired",
        ],
    };
    let mut summary = Table::new(titles);
    let number = |table: &Value, name: &str| thousands(table[name].as_u64().unwrap_or_default());
    for table in list_of(answer, "tables") {
        let mut row = vec![
            shown(&table["table"]),
            shown(&table["into"]),
            number(table, "rows"),
            number(table, "store_rows"),
            if table["equal"] == true { "yes" } else { "NO" }.to_owned(),
        ];
        if repaired.is_some() {
            row.push(number(table, "repaired"));
        }
        summary.row(row);
    }
    summary.print(out)?;
    for (table, part) in list_of(answer, "tables").iter().zip(parts.list("tables")) {
        one_table(table, part, out)?;
    }
    let position = thousands(answer["position"].as_u64().unwrap_or_default());
    out.line(&format!(
        "{} at position {position}",
        if equal { "equal" } else { "NOT equal" }
    ))
}

fn one_table(table: &Value, part: Part<'_>, out: &mut Out) -> io::Result<()> {
    let name = shown(&table["table"]);
    let parked = table["parked"].as_u64().unwrap_or_default();
    if parked > 0 {
        out.line(&format!(
            "\n{name}: {} parked, not compared",
            counted(parked, "key")
        ))?;
    }
    if table["equal"] == true {
        return Ok(());
    }
    let differences = list_of(table, "differences");
    let total = table["differences_total"].as_u64().unwrap_or_default();
    if !differences.is_empty() {
        out.line(&format!("\nrows of {name} that differ:"))?;
        let mut rows = Table::new(&["key", "in the log", "in the store"]);
        for (difference, part) in differences.iter().zip(part.list("differences")) {
            let text = |name: &str| match field(part, name) {
                None => "(missing)".to_owned(),
                Some(row) => cell(&row, CELL_CHARS_MAX),
            };
            let key = cell(&shown(&difference["key"]), CELL_CHARS_MAX);
            rows.row([key, text("log"), text("store")]);
        }
        rows.print(out)?;
    }
    if total > differences.len() as u64 {
        out.line(&format!("{} differ in all", counted(total, "row")))?;
    }
    let faults = &table["full_text"];
    if faults["faults_total"].as_u64().unwrap_or_default() > 0 {
        out.line(&format!("\nthe full-text index of {name}:"))?;
        for fault in list_of(faults, "faults") {
            out.line(&format!("  {}", shown(fault)))?;
        }
    }
    match table.get("advice") {
        Some(advice) if !advice.is_null() => out.line(&shown(advice)),
        _ => Ok(()),
    }
}

/// Prints what a sink would write.
pub fn dry_run(answer: &Exact, out: &mut Out) -> io::Result<()> {
    let (answer, parts) = (&answer.value, answer.parts());
    let mappings = list_of(answer, "mappings");
    for (n, (mapping, part)) in mappings.iter().zip(parts.list("mappings")).enumerate() {
        if n > 0 {
            out.line("")?;
        }
        let looked_at = mapping["looked_at"].as_u64().unwrap_or_default();
        let left_out = mapping["left_out"].as_u64().unwrap_or_default();
        let mut head = format!(
            "{} into {}: {} looked at",
            shown(&mapping["table"]),
            shown(&mapping["into"]),
            counted(looked_at, "record")
        );
        if left_out > 0 {
            head.push_str(&format!(", {} left out", thousands(left_out)));
        }
        if mapping["ended_early"] == true {
            head.push_str("; the programs took so long that no more were looked at");
        }
        out.line(&head)?;
        if let Some(line) = in_the_store(&mapping["store"]) {
            out.line(&line)?;
        }
        let mut table = Table::new(&[">version", "key", "row"]);
        for (row, part) in list_of(mapping, "rows").iter().zip(part.list("rows")) {
            let content = field(part, "document").or_else(|| field(part, "columns"));
            table.row([
                shown(&row["version"]),
                cell(&shown(&row["key"]), CELL_CHARS_MAX),
                cell(&content.unwrap_or_default(), 2 * CELL_CHARS_MAX),
            ]);
        }
        for row in list_of(mapping, "refused") {
            table.row([
                shown(&row["version"]),
                cell(&shown(&row["key"]), CELL_CHARS_MAX),
                cell(
                    &format!("REFUSED: {}", shown(&row["what"])),
                    2 * CELL_CHARS_MAX,
                ),
            ]);
        }
        table.print(out)?;
    }
    Ok(())
}

/// What a backfill would delete in the store.
fn in_the_store(store: &Value) -> Option<String> {
    let number = |name: &str| store[name].as_u64().map(thousands);
    let stop = store["stop"].as_str();
    if let Some(why) = store["why"].as_str() {
        let stop = stop.map(|stop| format!(". The sink WOULD STOP, and say: {stop}"));
        return Some(format!(
            "the rows of the store could not be counted: {why}{}",
            stop.unwrap_or_default()
        ));
    }
    let at_least = match store["counted_all"].as_bool()? {
        true => "",
        false => "at least ",
    };
    let (deletes, rows) = (number("deletes")?, number("rows")?);
    let changes = number("changes").filter(|_| store["changes"] != 0);
    let mut fate = match store["deletes"] == 0 {
        true => "none would be deleted".to_owned(),
        false => format!("{at_least}{deletes} WOULD BE DELETED"),
    };
    if let Some(changes) = changes {
        fate.push_str(&format!(" and {at_least}{changes} WOULD BE CHANGED"));
    }
    let mut line = format!("the store has {at_least}{rows} rows, of which {fate}");
    if store["is_too_much"] == true {
        line.push_str(": the sink would stop until that is allowed");
    }
    let lost = store["lost"].as_array().map_or(&[][..], Vec::as_slice);
    if !lost.is_empty() {
        let names: Vec<String> = lost.iter().map(shown).collect();
        line.push_str(&format!(
            "; a backfill WOULD DROP with the table what was added to it: {}",
            names.join(", ")
        ));
    }
    if let Some(stop) = stop {
        line.push_str(match store["is_too_much"] == true {
            true => ". It would say: ",
            false => ". The sink WOULD STOP, and say: ",
        });
        line.push_str(stop);
    }
    Some(line)
}

/// Prints parked keys.
pub fn parked(list: &[Value], total: u64, out: &mut Out) -> io::Result<()> {
    if total == 0 {
        return out.line("no key is parked");
    }
    let mut table = Table::new(&[
        "table",
        "key",
        ">first offset",
        ">newest offset",
        "message of the store",
    ]);
    for parked in list {
        let newest = match &parked["newest_offset"] {
            Value::Null => "(deleted)".to_owned(),
            offset => shown(offset),
        };
        table.row([
            shown(&parked["table"]),
            cell(&shown(&parked["key"]), CELL_CHARS_MAX),
            shown(&parked["first_offset"]),
            newest,
            cell(&shown(&parked["what"]), 2 * CELL_CHARS_MAX),
        ]);
    }
    table.print(out)?;
    if total > list.len() as u64 {
        out.line(&format!(
            "{} in all; --limit shows more",
            counted(total, "key")
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line_of(more: &[(&str, Value)]) -> String {
        let mut store = json!({
            "rows": 1200, "deletes": 0, "changes": 0, "is_too_much": false, "counted_all": true,
        });
        for (field, value) in more {
            store[*field] = value.clone();
        }
        in_the_store(&store).unwrap()
    }

    #[test]
    fn a_dry_run_names_what_a_backfill_drops_with_the_table() {
        let plain = "the store has 1,200 rows, of which none would be deleted";
        assert_eq!(line_of(&[]), plain);
        let lost = json!(["the index 'by_note'", "the trigger 'watch'"]);
        let dropped = "a backfill WOULD DROP with the table what was added to it: the index 'by_note', the trigger 'watch'";
        assert_eq!(line_of(&[("lost", lost)]), format!("{plain}; {dropped}"));
    }

    #[test]
    fn a_dry_run_says_that_the_sink_would_stop_and_what_it_would_say() {
        let ruled = line_of(&[("stop", json!("the rule r rewrites"))]);
        assert!(
            ruled.ends_with("The sink WOULD STOP, and say: the rule r rewrites"),
            "{ruled}"
        );
        let many = line_of(&[
            ("deletes", json!(900)),
            ("is_too_much", json!(true)),
            ("stop", json!("let it")),
        ]);
        assert!(
            many.ends_with(
                "900 WOULD BE DELETED: the sink would stop until that is allowed. It would say: let it"
            ),
            "{many}"
        );
        let unread = line_of(&[("why", json!("no right")), ("stop", json!("let it"))]);
        assert!(
            unread.contains("could not be counted: no right"),
            "{unread}"
        );
        assert!(unread.ends_with("say: let it"), "{unread}");
    }
}

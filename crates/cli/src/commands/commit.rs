//! `onelog commit FILE|-`.

use std::path::PathBuf;
use std::time::Duration;

use onelog_command::{CommandError, Context, read_whole, timeout};
use onelog_record::HTTP_BODY_BYTES_MAX;
use onelog_terminal::Out;
use serde_json::{Value, json};

use crate::wire::shown;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file with the transaction as JSON, as POST /v1/transactions takes it; - is standard input
    file: PathBuf,
    /// Wait until this sink's store shows the transaction; can be given several times
    #[arg(long, value_name = "SINK")]
    wait_for: Vec<String>,
    /// How long to wait for the sinks
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = timeout, requires = "wait_for")]
    wait_timeout: Duration,
}

/// Sends the file as it is and prints the answer. A refusal's whole JSON is printed with `--json`.
pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let mut body = read_whole(&args.file, HTTP_BODY_BYTES_MAX as u64)?;
    let mut client = context.client()?;
    if !args.wait_for.is_empty() {
        body = with_wait(body, &args.wait_for, args.wait_timeout)?;
        client = client.with_timeout(context.timeout.saturating_add(args.wait_timeout));
    }
    let mut out = Out::new();
    let answer = match client.post_bytes("/v1/transactions", body) {
        Ok(answer) => answer,
        Err(error) => match error.server() {
            Some(refusal) if context.json => {
                out.json(&refusal.body)?;
                out.flush()?;
                return Err(CommandError::Reported);
            }
            _ => return Err(error.into()),
        },
    };
    out.json(&answer)?;
    out.flush()?;
    match not_reached(&answer) {
        None => Ok(()),
        Some(message) => Err(CommandError::Failed(message)),
    }
}

/// Adds what to wait for to the text: read and written again it might lose digits of a number, or
/// a field that occurs twice, which the server must see.
fn with_wait(body: Vec<u8>, sinks: &[String], limit: Duration) -> Result<Vec<u8>, CommandError> {
    let inside = body
        .trim_ascii()
        .strip_prefix(b"{")
        .and_then(|body| body.strip_suffix(b"}"));
    let Some(inside) = inside else {
        return Err(CommandError::Usage(
            "--wait-for needs a transaction that is one JSON object".to_owned(),
        ));
    };
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let comma = if inside.trim_ascii().is_empty() {
        ""
    } else {
        ","
    };
    let more = format!(
        "{comma}\"wait_for\":{},\"wait_timeout_ms\":{limit_ms}}}",
        json!(sinks)
    );
    Ok([b"{", inside, more.as_bytes()].concat())
}

/// The sinks that did not show the transaction in time, in a sentence. It is committed all the same.
fn not_reached(answer: &Value) -> Option<String> {
    let waited = answer["waited"].as_object()?;
    let late: Vec<String> = waited
        .iter()
        .filter(|(_, sink)| sink["reached"] != true)
        .map(|(name, sink)| match &sink["reason"] {
            Value::Null => format!("the sink '{name}' has not reached it"),
            reason => shown(reason),
        })
        .collect();
    (!late.is_empty()).then(|| {
        format!(
            "the transaction is committed at position {}, but {}",
            shown(&answer["position"]),
            late.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transaction_stays_as_it_was_written() {
        let sinks = ["cache".to_owned()];
        let limit = Duration::from_secs(1);
        let text = |body: &str| {
            let body = with_wait(body.into(), &sinks, limit).unwrap();
            String::from_utf8(body).unwrap()
        };
        assert_eq!(
            text(" {\"writes\": [1.10]}\n"),
            r#"{"writes": [1.10],"wait_for":["cache"],"wait_timeout_ms":1000}"#
        );
        assert_eq!(
            text("{ }"),
            r#"{ "wait_for":["cache"],"wait_timeout_ms":1000}"#
        );
        assert!(with_wait(b"[]".to_vec(), &sinks, limit).is_err());
    }

    #[test]
    fn a_sink_that_is_late_is_reported_and_the_commit_is_not_denied() {
        let answer = json!({"position": 9, "waited": {
            "a": {"reached": true, "position": 9},
            "b": {"reached": false, "position": 3, "reason": "the sink 'b' did not"}}});
        assert_eq!(
            not_reached(&answer).unwrap(),
            "the transaction is committed at position 9, but the sink 'b' did not"
        );
        assert_eq!(not_reached(&json!({"position": 9})), None);
    }
}

//! `onelog tail`: follows the log and goes on where it was after a lost connection.

use std::time::Duration;

use onelog_client::{Client, ClientError, Events, Part, parse_answer};
use onelog_command::{CommandError, Context};
use onelog_terminal::{Out, cell};
use serde_json::Value;

use crate::wire::{shown, written};

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const CELL_CHARS_MAX: usize = 200;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to begin: a position, `start` (of what the log still has) or `latest`
    #[arg(long, value_name = "POSITION", default_value = "latest", value_parser = place)]
    from: String,
    /// Only records of this table
    #[arg(long)]
    table: Option<String>,
    /// End after this many records (at the end of their transaction)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

fn place(text: &str) -> Result<String, String> {
    match text {
        "start" | "latest" => Ok(text.to_owned()),
        _ => match text.parse::<u64>() {
            Ok(position) => Ok(position.to_string()),
            Err(_) => Err("expected a position, start or latest".to_owned()),
        },
    }
}

/// A follower of the log. It remembers the last event's id, so that nothing is lost or repeated.
struct Tail<'a> {
    args: &'a Args,
    as_json: bool,
    last_id: Option<String>,
    left: Option<u64>,
    out: Out,
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let client = context.client()?;
    let mut tail = Tail {
        args,
        as_json: context.json,
        last_id: None,
        left: args.limit,
        out: Out::new(),
    };
    let mut backoff = BACKOFF_FIRST;
    loop {
        let before = tail.last_id.clone();
        let end = tail.follow(&client);
        if tail.left == Some(0) {
            return Ok(());
        }
        match end {
            // A server that ends a stream is stopping; one that is away may come back.
            Ok(()) => {}
            Err(CommandError::Client(error)) if tail.last_id.is_some() && may_pass(&error) => {
                eprintln!("{error}; trying again");
            }
            Err(error) => return Err(error),
        }
        if before != tail.last_id {
            backoff = BACKOFF_FIRST;
        }
        std::thread::sleep(backoff);
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

fn may_pass(error: &ClientError) -> bool {
    error.is_lost() || error.server().is_some_and(|e| e.status == 503)
}

impl Tail<'_> {
    /// Follows until the stream ends.
    fn follow(&mut self, client: &Client) -> Result<(), CommandError> {
        let mut query = vec![("from", self.args.from.clone())];
        query.extend(self.args.table.iter().map(|table| ("table", table.clone())));
        query.extend(self.left.map(|left| ("limit", left.to_string())));
        let mut headers = vec![("accept", "text/event-stream".to_owned())];
        headers.extend(self.last_id.iter().map(|id| ("last-event-id", id.clone())));
        let stream = client.stream("/v1/log", &query, &headers)?;
        for event in Events::new(stream) {
            // A stream that breaks is opened again behind the last whole event.
            let Ok(event) = event else { return Ok(()) };
            if !event.data.is_empty() {
                let transaction = parse_answer(event.data.as_bytes())
                    .map_err(|_| client.unexpected("an event that is not JSON".to_owned()))?;
                self.print(&event.data, &transaction)?;
            }
            self.last_id = event.id.or(self.last_id.take());
        }
        Ok(())
    }

    fn print(&mut self, text: &str, transaction: &Value) -> Result<(), CommandError> {
        let records = transaction["records"].as_array();
        let records = records.map(Vec::as_slice).unwrap_or_default();
        if self.as_json {
            self.out.line(text)?;
        } else {
            let parts = Part::of(text).list("records");
            for (record, part) in records.iter().zip(parts) {
                let text = |name: &str| cell(&shown(&record[name]), CELL_CHARS_MAX);
                let value = match record.get("value") {
                    // A text without its quotes, everything else as it was written.
                    Some(Value::String(_)) => text("value"),
                    Some(_) => {
                        let value = part.get("value").map(written);
                        cell(&value.unwrap_or_default(), CELL_CHARS_MAX)
                    }
                    None => String::new(),
                };
                let line = format!(
                    "{}  {:6}  {}  {}  {value}",
                    record["offset"],
                    text("op"),
                    text("table"),
                    text("key"),
                );
                self.out.line(line.trim_end())?;
            }
        }
        self.out.flush()?;
        self.left = self
            .left
            .map(|left| left.saturating_sub(records.len() as u64));
        Ok(())
    }
}

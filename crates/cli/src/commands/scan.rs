//! `onelog scan TABLE`.

use std::ffi::OsString;

use serde_json::Value;

use super::get::Moment;
use crate::client::{Client, ClientError, segment};
use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Out, Table, cell};
use crate::wire::{argument, bytes_from_json, key_query, shown};

/// How many rows are printed unless more are asked for.
const LIMIT: u64 = 100;
/// The most rows that the server puts into one page.
const PAGE_ROWS_MAX: u64 = 10_000;
/// How wide a key or value is shown.
const CELL_CHARS_MAX: usize = 120;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The table
    table: String,
    /// The first key
    #[arg(long, value_name = "KEY")]
    from: Option<OsString>,
    /// The first key behind the range
    #[arg(long, value_name = "KEY")]
    to: Option<OsString>,
    /// Only keys that begin so
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<OsString>,
    /// The most rows
    #[arg(long, value_name = "COUNT", default_value_t = LIMIT, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    moment: Moment,
}

/// Pages of one table, all at the position of the first one.
pub struct Pages {
    path: String,
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    prefix: Option<Vec<u8>>,
    reverse: bool,
    moment: Moment,
    ended: bool,
}

impl Pages {
    /// The whole table.
    pub fn of(table: &str, moment: Moment) -> Self {
        Self {
            path: format!("/v1/tables/{}/keys", segment(table.as_bytes())),
            from: None,
            to: None,
            prefix: None,
            reverse: false,
            moment,
            ended: false,
        }
    }

    /// The next page, with `position` and `rows`; `None` behind the last one.
    pub fn next(&mut self, client: &Client, rows_max: u64) -> Result<Option<Value>, ClientError> {
        if self.ended || rows_max == 0 {
            return Ok(None);
        }
        let bounds = [
            ("from", &self.from),
            ("to", &self.to),
            ("prefix", &self.prefix),
        ];
        let keys: Vec<(&'static str, &[u8])> = bounds
            .iter()
            .filter_map(|(name, key)| Some((*name, key.as_deref()?)))
            .collect();
        let mut query = key_query(&keys);
        query.push(("limit", rows_max.min(PAGE_ROWS_MAX).to_string()));
        if self.reverse {
            query.push(("reverse", "true".to_owned()));
        }
        query.extend(self.moment.query());
        let page = client.get(&self.path, &query)?;
        let position = page["position"].as_u64();
        if position.is_none() || !page["rows"].is_array() {
            return Err(client.unexpected("a page of a table without position and rows".to_owned()));
        }
        // Every further page shows the same state.
        self.moment = Moment {
            at: position,
            after: None,
        };
        match bytes_from_json(&page["next"]) {
            Some(next) if self.reverse => self.to = Some(next),
            Some(next) => self.from = Some(next),
            None => self.ended = true,
        }
        Ok(Some(page))
    }
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let client = context.client()?;
    let bytes = |text: &Option<OsString>| text.as_deref().map(|t| argument(t).to_vec());
    let mut pages = Pages::of(&args.table, args.moment.clone());
    pages.from = bytes(&args.from);
    pages.to = bytes(&args.to);
    pages.prefix = bytes(&args.prefix);
    pages.reverse = args.reverse;
    let mut out = Out::new();
    let mut left = args.limit;
    let mut table = Table::new(&["key", ">version", "value"]);
    while let Some(page) = pages.next(&client, left)? {
        let rows = page["rows"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        left = left.saturating_sub(rows.len() as u64);
        for row in rows {
            if context.json {
                out.json(row)?;
            } else {
                let text = |name: &str| cell(&shown(&row[name]), CELL_CHARS_MAX);
                table.row([text("key"), text("version"), text("value")]);
            }
        }
        if !context.json {
            // A page at a time, so that a long list is not held in memory.
            table.print(&mut out)?;
            table.clear();
        }
    }
    Ok(out.flush()?)
}

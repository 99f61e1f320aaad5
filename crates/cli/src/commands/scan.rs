//! `onelog scan TABLE`.

use std::ffi::OsString;

use onelog_client::{Client, ClientError, segment};
use onelog_command::{CommandError, Context};
use onelog_terminal::{Out, Table, cell};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::get::Moment;
use crate::wire::{argument, bytes_from_json, key_query, shown};

/// How many rows are printed by default.
const LIMIT: u64 = 100;
/// The most rows that the server puts into one page.
const PAGE_ROWS_MAX: u64 = 10_000;
/// How wide a key or value is shown.
const CELL_CHARS_MAX: usize = 120;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the table, as service.table
    table: String,
    /// Begin with this key, or the first one behind it
    #[arg(long, value_name = "KEY")]
    from: Option<OsString>,
    /// The first key behind the range
    #[arg(long, value_name = "KEY")]
    to: Option<OsString>,
    /// Only keys that begin so
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<OsString>,
    /// Print at most so many rows
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

    /// The next page; `None` behind the last one.
    pub fn next(&mut self, client: &Client, rows_max: u64) -> Result<Option<Page>, ClientError> {
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
        let page: Page = client.get_as(&self.path, &query)?;
        // Every further page shows the same state.
        self.moment = Moment {
            at: Some(page.position),
            after: None,
            linearizable: false,
        };
        match bytes_from_json(&page.next) {
            Some(next) if self.reverse => self.to = Some(next),
            Some(next) => self.from = Some(next),
            None => self.ended = true,
        }
        Ok(Some(page))
    }
}

#[derive(Debug, Deserialize)]
pub struct Page {
    /// The position that all pages are read at.
    pub position: u64,
    pub rows: Vec<Row>,
    next: Value,
}

/// One row. The value stays as it was written.
#[derive(Debug, Deserialize, Serialize)]
pub struct Row {
    pub key: Value,
    /// The offset of the record that wrote it.
    pub version: u64,
    pub value: Box<RawValue>,
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
        left = left.saturating_sub(page.rows.len() as u64);
        for row in &page.rows {
            if context.json {
                out.json(row)?;
            } else {
                table.row([
                    cell(&shown(&row.key), CELL_CHARS_MAX),
                    row.version.to_string(),
                    cell(row.value.get(), CELL_CHARS_MAX),
                ]);
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

//! Printing: JSON for programs, aligned plain text for people.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

/// Standard output, buffered. A reader that goes away (`| head`) is a broken pipe, which a command
/// ends on quietly.
#[derive(Debug)]
pub struct Out {
    writer: BufWriter<StdoutLock<'static>>,
}

impl Default for Out {
    fn default() -> Self {
        Self::new()
    }
}

impl Out {
    /// Locks standard output.
    pub fn new() -> Self {
        Self {
            writer: BufWriter::new(io::stdout().lock()),
        }
    }

    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.writer, "{text}")
    }

    /// A JSON value on one line.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, value)?;
        self.writer.write_all(b"\n")
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    /// Sends everything out.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A table of aligned columns.
#[derive(Debug)]
pub struct Table {
    titles: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these titles; a title that begins with `>` has its column aligned right.
    pub fn new(titles: &[&'static str]) -> Self {
        Self {
            titles: titles.iter().map(|t| t.trim_start_matches('>')).collect(),
            right: titles.iter().map(|t| t.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().collect();
        row.resize(self.titles.len(), String::new());
        self.rows.push(row);
    }

    /// Forgets the rows, to go on with others.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    pub fn print(&self, out: &mut Out) -> io::Result<()> {
        let mut lines = self.lines().into_iter();
        if let Some(title) = lines.next() {
            out.line(&bold(&title))?;
        }
        lines.try_for_each(|line| out.line(&line))
    }

    fn lines(&self) -> Vec<String> {
        let titles: Vec<String> = self.titles.iter().map(|t| (*t).to_owned()).collect();
        let all = || std::iter::once(&titles).chain(&self.rows);
        let widths: Vec<usize> = (0..titles.len())
            .map(|n| all().map(|row| width(&row[n])).max().unwrap_or(0))
            .collect();
        all()
            .map(|row| {
                let mut line = String::new();
                for (n, cell) in row.iter().enumerate() {
                    let pad = " ".repeat(widths[n] - width(cell));
                    if n > 0 {
                        line.push_str("  ");
                    }
                    match self.right[n] {
                        true => line.extend([pad.as_str(), cell]),
                        false => line.extend([cell, pad.as_str()]),
                    }
                }
                line.trim_end().to_owned()
            })
            .collect()
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Bold on a terminal that wants colours.
pub fn bold(text: &str) -> String {
    let styled =
        io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    match styled {
        true => format!("\x1b[1m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

/// A whole number with its thousands apart.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 record`, `1,000 records`.
pub fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", thousands(number))
}

/// A text for one cell: control characters escaped, cut at `max` characters.
pub fn cell(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == max {
            out.push('…');
            break;
        }
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["name", ">rows"]);
        table.row(["a".into(), "1".into()]);
        table.row(["größer".into(), "1,000".into()]);
        assert_eq!(
            table.lines(),
            ["name     rows", "a           1", "größer  1,000"]
        );
    }

    #[test]
    fn numbers_and_cells_are_written_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(counted(2000, "row"), "2,000 rows");
        assert_eq!(cell("a\nb\u{1b}[1m", 40), "a\\nb\\u{1b}[1m");
        assert_eq!(cell("abcdef", 3), "abc…");
    }
}

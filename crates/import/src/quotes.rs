//! How a row of CSV is written, by RFC 4180. The reader of rows takes what looks like a value wherever
//! quotes are missing, and one of them may hide rows in the value of another.

/// What is seen in the bytes of a row, with the empty lines in front of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// How many lines in front of the row are empty.
    pub blank: u64,
    /// How many line ends the row has, its own among them.
    pub lines: u64,
    /// Whether it is one more empty line.
    pub is_empty: bool,
    /// Whether a carriage return belongs to the end of its line.
    pub ends_with_return: bool,
    pub fault: Option<Fault>,
}

/// What is not as CSV is written, in the column of this number, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    column: usize,
    what: &'static str,
}

const BEHIND: &str = "has text behind its closing quote; is a quote missing in this line or before it? a quote inside a text is doubled";
const INSIDE: &str = "has a quote inside a text without quotes; such a text is put in quotes, and the quote is doubled";
const OPEN: &str =
    "is not closed: the file ends inside its quotes; a quote is missing in this line or behind it";

impl Fault {
    pub fn said(self, names: &[String]) -> String {
        let Self { column, what } = self;
        match names.get(column) {
            Some(name) => format!("the column '{name}' {what}"),
            None => format!("column {} {what}", column + 1),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In front of a value.
    Start,
    Plain,
    Quoted,
    /// Behind a quote that closes the value, or is the first of two.
    Closed,
    /// Behind a carriage return behind the closing quote: only the line's end may follow.
    Returned,
}

impl Written {
    pub fn of(bytes: &[u8], delimiter: u8) -> Self {
        let blank = bytes.iter().take_while(|byte| **byte == b'\n').count();
        let row = &bytes[blank..];
        let (place, fault) = match row.contains(&b'"') {
            true => quoted(row, delimiter),
            false => (Place::Plain, None),
        };
        let line = row.strip_suffix(b"\n").unwrap_or(row);
        Self {
            blank: blank as u64,
            lines: row.iter().filter(|byte| **byte == b'\n').count() as u64,
            is_empty: line.is_empty() || line == b"\r",
            ends_with_return: place != Place::Quoted && line.ends_with(b"\r"),
            fault,
        }
    }
}

/// Where a row ends, and the first of its faults.
fn quoted(row: &[u8], delimiter: u8) -> (Place, Option<Fault>) {
    let (mut place, mut column) = (Place::Start, 0);
    let mut fault = None;
    for byte in row {
        let mut found = |what| {
            fault.get_or_insert(Fault { column, what });
            Place::Plain
        };
        place = match (place, byte) {
            (Place::Quoted, b'"') => Place::Closed,
            (Place::Quoted, _) => Place::Quoted,
            (Place::Start, b'"') => Place::Quoted,
            (Place::Closed, b'"') => Place::Quoted,
            (_, byte) if *byte == delimiter => {
                if place == Place::Returned {
                    found(BEHIND);
                }
                column += 1;
                Place::Start
            }
            (_, b'\n') => Place::Start,
            (Place::Closed, b'\r') => Place::Returned,
            (Place::Closed | Place::Returned, _) => found(BEHIND),
            (Place::Plain, b'"') => found(INSIDE),
            (Place::Start | Place::Plain, _) => Place::Plain,
        };
    }
    if place == Place::Quoted {
        fault.get_or_insert(Fault { column, what: OPEN });
    }
    (place, fault)
}

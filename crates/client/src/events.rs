//! Server-sent events, read from a stream that may end at any byte.

use std::io::{self, BufRead, BufReader, Read};

/// The most bytes of one event: a whole transaction fits, written as JSON with every byte escaped.
const EVENT_BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its id, to go on from after a broken connection.
    pub id: Option<String>,
    /// Its kind; `message` when not given.
    pub kind: Option<String>,
    /// Its data; empty for a sign of life, which only carries an id.
    pub data: String,
}

/// Reads events until the stream ends. An event that is cut off is not answered.
#[derive(Debug)]
pub struct Events<R> {
    lines: BufReader<R>,
}

impl<R: Read> Events<R> {
    /// Reads from a stream.
    pub fn new(stream: R) -> Self {
        Self {
            lines: BufReader::new(stream),
        }
    }

    fn read_event(&mut self) -> io::Result<Option<Event>> {
        let mut event = Event::default();
        let mut has_data = false;
        let mut size = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            let left = (EVENT_BYTES_MAX - size) as u64;
            size += (&mut self.lines).take(left).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return match size < EVENT_BYTES_MAX {
                    true => Ok(None),
                    false => Err(io::Error::other("an event is larger than 64 MiB")),
                };
            }
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            let text = std::str::from_utf8(&line)
                .map_err(|_| io::Error::other("an event is not UTF-8"))?;
            if text.is_empty() {
                if has_data || event.id.is_some() {
                    return Ok(Some(event));
                }
                event = Event::default();
                size = 0;
                continue;
            }
            let (name, value) = text.split_once(':').unwrap_or((text, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "id" => event.id = Some(value.to_owned()),
                "event" => event.kind = Some(value.to_owned()),
                "data" => {
                    if has_data {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                    has_data = true;
                }
                _ => {}
            }
        }
    }
}

impl<R: Read> Iterator for Events<R> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_event().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_separated_and_a_sign_of_life_carries_its_id() {
        let stream = ": hello\n\nid: 2\n: alive\n\nid: 3\r\nevent: transaction\r\ndata: {\"a\":1}\r\n\r\n:\n\ndata:x\ndata:y\n\ndata: cut";
        let events: Vec<_> = Events::new(stream.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(
            events,
            [
                Event {
                    id: Some("2".into()),
                    ..Event::default()
                },
                Event {
                    id: Some("3".into()),
                    kind: Some("transaction".into()),
                    data: "{\"a\":1}".into(),
                },
                Event {
                    data: "x\ny".into(),
                    ..Event::default()
                },
            ]
        );
    }
}

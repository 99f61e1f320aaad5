//! The names of keys in Redis, and which partition a row belongs to.
//!
//! | key | holds |
//! |---|---|
//! | *template* | a row |
//! | `onelog:owners` | hash: template → the sink that owns it; empty when its sink was removed |
//! | `onelog:position:SINK` | hash: `log`, `position` (absent until backfilled), `epoch`, `plan`, `filling` |
//! | `onelog:new:SINK:M:…` | a row of a rebuild under way, of mapping number M |
//! | `onelog:names:SINK:M` | list: the keys of those rows |
//! | `onelog:gone:SINK:M` | list: the keys of rows that the rebuild takes away |
//!
//! With partitions every key but `onelog:owners` begins with its partition's hash tag, `{p017}`,
//! so that Redis Cluster keeps a partition's rows and its position in one slot.

use onelog_mapping::{DefinitionError, KeyTemplate, Plan};

/// The hash of the templates' owners.
pub(crate) const OWNERS: &[u8] = b"onelog:owners";
/// What no template may name: our own keys, and what begins like a hash tag of ours.
const RESERVED: [&str; 2] = ["onelog:", "{p"];
/// How many slots Redis Cluster has.
const SLOTS: u16 = 16384;

/// The names of one sink's keys.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    sink: String,
    partitions: Option<u16>,
    tags: Vec<String>,
}

/// Which of a mapping's temporary lists.
#[derive(Clone, Copy, Debug)]
pub(crate) enum List {
    /// The rows of a rebuild.
    New,
    /// The rows that it takes away.
    Gone,
}

impl Names {
    pub(crate) fn new(sink: &str, partitions: Option<u16>) -> Self {
        let tags = match partitions {
            None => vec![String::new()],
            Some(count) => (0..count.max(1)).map(tag_of).collect(),
        };
        Self {
            sink: sink.to_owned(),
            partitions,
            tags,
        }
    }

    /// Whether keys are spread over partitions.
    pub(crate) const fn are_spread(&self) -> bool {
        self.partitions.is_some()
    }

    /// How many partitions there are; one where none were requested.
    pub(crate) fn partitions(&self) -> usize {
        self.tags.len()
    }

    /// Where a record's key belongs.
    pub(crate) fn partition_of(&self, key: &[u8]) -> usize {
        match self.partitions {
            None => 0,
            Some(count) => usize::from(crc16(key) % count.max(1)),
        }
    }

    /// The slot of a partition.
    pub(crate) fn slot_of(&self, partition: usize) -> u16 {
        crc16(format!("p{partition:03}").as_bytes()) % SLOTS
    }

    /// The hash tag before every key of a partition.
    pub(crate) fn tag(&self, partition: usize) -> &str {
        &self.tags[partition]
    }

    pub(crate) fn position(&self, partition: usize) -> Vec<u8> {
        format!("{}onelog:position:{}", self.tag(partition), self.sink).into_bytes()
    }

    /// The first record of the sink if it had partitions and has none now, or the other way round.
    pub(crate) fn counterpart(&self) -> Vec<u8> {
        let first = match self.partitions {
            None => Some(1),
            Some(_) => None,
        };
        Self::new(&self.sink, first).position(0)
    }

    /// A pattern that every record of the sink matches, whatever its partitions, and perhaps other
    /// keys.
    pub(crate) fn records(&self) -> Vec<u8> {
        format!("*onelog:position:{}", self.sink).into_bytes()
    }

    /// Whether a key is a record of the sink that the present partitions do not have.
    pub(crate) fn is_former_record(&self, name: &[u8]) -> bool {
        let bare = format!("onelog:position:{}", self.sink);
        let tag = std::str::from_utf8(name)
            .ok()
            .and_then(|name| name.strip_suffix(&bare));
        tag.is_some_and(|tag| is_tag(tag) && !self.tags.iter().any(|own| own == tag))
    }

    /// What the rows of a rebuild begin with.
    pub(crate) fn staging(&self, partition: usize, mapping: usize) -> Vec<u8> {
        format!("{}onelog:new:{}:{mapping}:", self.tag(partition), self.sink).into_bytes()
    }

    pub(crate) fn list(&self, list: List, partition: usize, mapping: usize) -> Vec<u8> {
        let list = match list {
            List::New => "names",
            List::Gone => "gone",
        };
        format!(
            "{}onelog:{list}:{}:{mapping}",
            self.tag(partition),
            self.sink
        )
        .into_bytes()
    }

    /// Patterns of everything that a rebuild under way keeps.
    pub(crate) fn leftovers(&self) -> [Vec<u8>; 3] {
        ["new", "names", "gone"].map(|kind| {
            let mut pattern = self.any_tag();
            pattern.extend_from_slice(format!("onelog:{kind}:{}:*", self.sink).as_bytes());
            pattern
        })
    }

    fn any_tag(&self) -> Vec<u8> {
        match self.partitions {
            None => Vec::new(),
            Some(_) => b"{p*}".to_vec(),
        }
    }

    /// A pattern that the rows of a template match, and perhaps other keys.
    pub(crate) fn pattern(&self, template: &KeyTemplate) -> Vec<u8> {
        let mut pattern = self.any_tag();
        escape(template.prefix.as_bytes(), &mut pattern);
        pattern.push(b'*');
        escape(template.suffix.as_bytes(), &mut pattern);
        pattern
    }

    /// The record's key of a key in Redis; `None` when the template does not name it.
    pub(crate) fn strip<'k>(&self, template: &KeyTemplate, name: &'k [u8]) -> Option<&'k [u8]> {
        let rest = match self.partitions {
            None => name,
            Some(_) => {
                let rest = name.strip_prefix(b"{p")?;
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                rest.get(digits..)?.strip_prefix(b"}")?
            }
        };
        template.strip(rest)
    }

    /// Whether a row of this key is in its partition.
    pub(crate) fn is_placed(&self, name: &[u8], key: &[u8]) -> bool {
        name.starts_with(self.tag(self.partition_of(key)).as_bytes())
    }

    /// The key of a row in Redis.
    pub(crate) fn row(
        &self,
        template: &KeyTemplate,
        partition: usize,
        key: &[u8],
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(self.tag(partition).as_bytes());
        template.render(key, out);
    }
}

fn tag_of(partition: u16) -> String {
    format!("{{p{partition:03}}}")
}

/// Whether a text is what keys begin with in some partition, or without partitions.
fn is_tag(text: &str) -> bool {
    let number = text
        .strip_prefix("{p")
        .and_then(|rest| rest.strip_suffix('}'));
    let number = number.and_then(|digits| digits.parse().ok());
    text.is_empty() || number.is_some_and(|number| tag_of(number) == text)
}

/// The slot of `onelog:owners`.
pub(crate) fn owners_slot() -> u16 {
    crc16(OWNERS) % SLOTS
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'-') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

/// CRC-16/XMODEM, as Redis Cluster computes slots.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            (crc << 1) ^ (if crc & 0x8000 == 0 { 0 } else { 0x1021 })
        })
    })
}

/// Whether some key fits both templates.
pub(crate) fn overlap(one: &KeyTemplate, other: &KeyTemplate) -> bool {
    let nested = |a: &str, b: &str, is_part: fn(&str, &str) -> bool| is_part(a, b) || is_part(b, a);
    nested(&one.prefix, &other.prefix, |a, b| a.starts_with(b))
        && nested(&one.suffix, &other.suffix, |a, b| a.ends_with(b))
}

/// Refuses templates by which two mappings could name the same key, and templates that could name
/// onelog's own keys.
pub(crate) fn check_mappings(plan: &Plan) -> Result<(), DefinitionError> {
    for (n, mapping) in plan.mappings.iter().enumerate() {
        let place = format!("mappings[{n}].key");
        let template = &mapping.key_template;
        for reserved in RESERVED {
            let ours = KeyTemplate {
                prefix: reserved.to_owned(),
                suffix: String::new(),
            };
            if overlap(template, &ours) {
                return Err(DefinitionError::new(
                    place,
                    format!(
                        "'{template}' could name a key that begins with '{reserved}', which onelog keeps for itself; begin the template with a text of your own, for example \"{}:{{$key}}\"",
                        mapping.into
                    ),
                ));
            }
        }
        for (m, earlier) in plan.mappings[..n].iter().enumerate() {
            if overlap(template, &earlier.key_template) {
                return Err(DefinitionError::new(
                    place,
                    format!(
                        "'{template}' and '{}' of mappings[{m}] could name the same key; let neither begin or end like the other",
                        earlier.key_template
                    ),
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(prefix: &str, suffix: &str) -> KeyTemplate {
        KeyTemplate {
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
        }
    }

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b"foo") % SLOTS, 12182);
    }

    #[test]
    fn former_records_are_those_of_partitions_that_are_not_there() {
        for (partitions, name, expected) in [
            (None, "onelog:position:s", false),
            (None, "{p000}onelog:position:s", true),
            (Some(4), "onelog:position:s", true),
            (Some(4), "{p003}onelog:position:s", false),
            (Some(4), "{p004}onelog:position:s", true),
            (Some(4), "{p4095}onelog:position:s", true),
            (Some(4), "{p04}onelog:position:s", false),
            (Some(4), "{q004}onelog:position:s", false),
            (Some(4), "x:onelog:position:s", false),
            (Some(4), "{p004}onelog:position:s2", false),
        ] {
            let names = Names::new("s", partitions);
            assert_eq!(names.is_former_record(name.as_bytes()), expected, "{name}");
        }
        let counterpart = |partitions| Names::new("s", partitions).counterpart();
        assert_eq!(counterpart(None), b"{p000}onelog:position:s");
        assert_eq!(counterpart(Some(4)), b"onelog:position:s");
    }

    #[test]
    fn templates_overlap_exactly_when_one_key_fits_both() {
        for (one, other, expected) in [
            (template("a:", ""), template("b:", ""), false),
            (template("a:", ""), template("a:b:", ""), true),
            (template("a:", ":x"), template("a:", ":y"), false),
            (template("a:", ":x"), template("a:", ""), true),
            (template("", ":x"), template("b", "y:x"), true),
            (template("", ""), template("b", ""), true),
        ] {
            assert_eq!(overlap(&one, &other), expected, "{one} {other}");
            assert_eq!(overlap(&other, &one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_key_is_found_again_whatever_is_in_it() {
        let template = template("or*der[1]:", "\\end");
        for partitions in [None, Some(1), Some(256), Some(4096)] {
            let names = Names::new("sink", partitions);
            for key in [&b""[..], b"a", b"{p001}", &[0xff, 0, b'*', b'}'], b":\\end"] {
                let partition = names.partition_of(key);
                assert!(partition < names.partitions());
                let mut name = Vec::new();
                names.row(&template, partition, key, &mut name);
                assert_eq!(names.strip(&template, &name), Some(key));
                assert!(names.is_placed(&name, key));
                let mut elsewhere = b"{p9999}".to_vec();
                template.render(key, &mut elsewhere);
                assert!(partitions.is_none() || !names.is_placed(&elsewhere, key));
            }
            assert_eq!(names.strip(&template, b"order:1"), None);
        }
    }
}

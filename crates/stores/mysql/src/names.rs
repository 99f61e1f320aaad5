//! The names of what a sink keeps in the database beside its tables.
//!
//! A name holds a hash of the sink's name, because identifiers have at most 64 characters and some
//! servers fold case; a readable part follows for people. What belongs to a takeover or to a
//! generation of tables carries its number, so that two processes never meet under one name.

/// The longest identifier, in characters.
pub(crate) const NAME_CHARS_MAX: usize = 64;
const READABLE_CHARS: usize = 10;

/// The names of one sink.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    base: String,
}

impl Names {
    pub(crate) fn new(sink: &str) -> Self {
        let readable: String = sink
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(READABLE_CHARS)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        Self {
            base: format!("{}_{readable}", hash(sink, 12)),
        }
    }

    /// The table with the sink's position: one row, or none.
    pub(crate) fn position(&self) -> String {
        format!("onelog_position_{}", self.base)
    }

    /// The beginning of every new table's name, before its takeover.
    pub(crate) fn new_prefix(&self) -> String {
        format!("onelog_new_{}_", self.base)
    }

    /// The position of a rebuild under way.
    pub(crate) fn new_position(&self, epoch: u64) -> String {
        format!("{}{epoch}", self.new_prefix())
    }

    /// A table that a rebuild loads.
    pub(crate) fn new_table(&self, epoch: u64, into: &str) -> String {
        format!("{}{epoch}_{}", self.new_prefix(), hash(into, 8))
    }

    /// The beginning of every replaced table's name, before its generation.
    pub(crate) fn old_prefix(&self) -> String {
        format!("onelog_old_{}_", self.base)
    }

    /// The position that a rebuild replaced.
    pub(crate) fn old_position(&self, generation: u64) -> String {
        format!("{}{generation}", self.old_prefix())
    }

    /// A table that a rebuild replaced, as long as a reader may still use it.
    pub(crate) fn old_table(&self, generation: u64, into: &str) -> String {
        format!("{}{generation}_{}", self.old_prefix(), hash(into, 8))
    }

    /// The beginning of every pin's name, before its generation.
    pub(crate) fn pin_prefix(&self) -> String {
        format!("onelog_pin_{}_", self.base)
    }

    /// The table that readers of a generation hold.
    pub(crate) fn pin(&self, generation: u64) -> String {
        format!("{}{generation}", self.pin_prefix())
    }

    /// The table in which a batch is staged where rows can conflict.
    pub(crate) fn batch(&self, into: &str) -> String {
        format!("onelog_batch_{}_{}", self.base, hash(into, 8))
    }
}

/// The number behind a prefix: the takeover or the generation that a table belongs to.
pub(crate) fn number_behind(prefix: &str, name: &str) -> Option<u64> {
    let rest = name.strip_prefix(prefix)?;
    rest.split('_').next()?.parse().ok()
}

fn hash(text: &str, digits: usize) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..digits].to_owned()
}

/// An identifier, safe whatever it contains.
pub(crate) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text of SQL, safe because backslashes mean nothing in our sessions.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Identifiers with commas between.
pub(crate) fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(quote).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_tell_what_they_belong_to() {
        let names = Names::new(&"Very.Long-Name_".repeat(8));
        for name in [
            names.position(),
            names.new_table(9_999_999_999, "orders"),
            names.old_table(9_999_999_999, "orders"),
            names.pin(9_999_999_999),
            names.batch("orders"),
        ] {
            assert!(name.chars().count() <= NAME_CHARS_MAX, "{name}");
        }
        let table = names.new_table(17, "orders");
        assert_eq!(number_behind(&names.new_prefix(), &table), Some(17));
        assert_eq!(number_behind(&names.old_prefix(), &table), None);
        assert_ne!(Names::new("a").position(), Names::new("A").position());
    }
}

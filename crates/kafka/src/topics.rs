//! Tables as topics: their names and their ids.
//!
//! ```text
//! topic id := 0 the first twelve bytes of BLAKE3 over the log's id [16] BE | 12 table u32 BE
//! ```
//!
//! A table that is made anew has another number, and so another id; a copy of the log that goes
//! its own way has another log id. The whole log has the number 0, which no table has.

use std::sync::Arc;

use onelog::{Catalog, TableDefinition};
use onelog_record::{TableId, USER_TABLES_FROM};
use uuid::Uuid;

/// The name of the topic that is the whole log. No table of a user can have it.
pub const WHOLE_LOG: &str = "onelog";

/// A topic: one table, or all of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Topic {
    WholeLog,
    Table(Arc<TableDefinition>),
}

impl Topic {
    pub fn name(&self) -> &str {
        match self {
            Self::WholeLog => WHOLE_LOG,
            Self::Table(table) => &table.name,
        }
    }

    /// The number of the table; none for the whole log.
    fn number(&self) -> u32 {
        match self {
            Self::WholeLog => 0,
            Self::Table(table) => table.id.0,
        }
    }
}

/// The topics at one position.
#[derive(Debug)]
pub struct Topics {
    catalog: Arc<Catalog>,
    of_log: [u8; 12],
}

impl Topics {
    pub fn new(catalog: Arc<Catalog>, log_id: u128) -> Self {
        let hash = blake3::hash(&log_id.to_be_bytes());
        let mut of_log = [0; 12];
        of_log.copy_from_slice(&hash.as_bytes()[..12]);
        Self { catalog, of_log }
    }

    /// Every topic, the whole log first.
    pub fn all(&self) -> impl Iterator<Item = Topic> {
        let tables = self.catalog.tables().cloned().map(Topic::Table);
        std::iter::once(Topic::WholeLog).chain(tables)
    }

    pub fn by_name(&self, name: &str) -> Option<Topic> {
        if name == WHOLE_LOG {
            return Some(Topic::WholeLog);
        }
        let table = self.catalog.by_name(name)?;
        (table.id >= USER_TABLES_FROM).then(|| Topic::Table(Arc::clone(table)))
    }

    pub fn by_id(&self, id: Uuid) -> Option<Topic> {
        let number = id.as_bytes().strip_prefix(&self.of_log[..])?;
        let number = u32::from_be_bytes(number.try_into().ok()?);
        if number == 0 {
            return Some(Topic::WholeLog);
        }
        let table = self.catalog.by_id(TableId(number))?;
        let is_topic = !table.dropped && table.id >= USER_TABLES_FROM;
        is_topic.then(|| Topic::Table(Arc::clone(table)))
    }

    pub fn id(&self, topic: &Topic) -> Uuid {
        let mut id = [0; 16];
        id[..12].copy_from_slice(&self.of_log);
        id[12..].copy_from_slice(&topic.number().to_be_bytes());
        Uuid::from_bytes(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_topic_is_made_of_the_log_and_the_number() {
        let topics = Topics::new(Arc::new(Catalog::new()), 1);
        let id = topics.id(&Topic::WholeLog);
        assert_eq!(topics.by_id(id), Some(Topic::WholeLog));
        assert_eq!(id.to_string(), "07ed55c1-e924-d41a-e49a-066100000000");
        let other = Topics::new(Arc::new(Catalog::new()), 2);
        assert_eq!(other.by_id(id), None);
        assert_eq!(topics.by_id(Uuid::nil()), None);
    }

    #[test]
    fn the_tables_of_onelog_itself_are_no_topics() {
        let topics = Topics::new(Arc::new(Catalog::new()), 1);
        assert_eq!(topics.by_name("onelog.tables"), None);
        assert_eq!(topics.by_name(WHOLE_LOG), Some(Topic::WholeLog));
        assert_eq!(topics.all().count(), 1);
    }
}

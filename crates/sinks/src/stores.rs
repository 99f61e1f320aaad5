//! From a definition to its store: the one place that knows every kind.

use std::sync::Arc;

use crate::definition::{SinkDefinition, SinkKind};
use crate::elasticsearch::{self, ElasticsearchStore};
use crate::mysql::{self, MysqlStore};
use crate::plan::Plan;
use crate::postgres::{self, PostgresStore};
use crate::redis::{self, RedisStore};
use crate::sqlite::{self, SqliteStore};
use crate::store::{Store, StoreError, StoreReader};

/// Opens the store of a definition for the sink of that name.
pub fn open_store(
    definition: &SinkDefinition,
    plan: &Arc<Plan>,
    log_id: &str,
) -> Result<Box<dyn Store>, StoreError> {
    let (sink, plan) = (&definition.name, Arc::clone(plan));
    Ok(match &definition.kind {
        SinkKind::Sqlite { path } => Box::new(SqliteStore::open(path, sink, log_id, plan)?),
        SinkKind::Postgres(target) => Box::new(PostgresStore::open(target, sink, log_id, plan)?),
        SinkKind::Mysql(target) => Box::new(MysqlStore::open(target, sink, log_id, plan)?),
        SinkKind::Redis(target) => Box::new(RedisStore::open(target, sink, log_id, plan)?),
        SinkKind::Elasticsearch(target) => {
            Box::new(ElasticsearchStore::open(target, sink, log_id, plan)?)
        }
    })
}

/// Opens the tables of a plan for reading alone, as they are, whoever they belong to. The position
/// of the picture is [`Position::ZERO`](onelog_record::Position::ZERO) and means nothing.
pub fn open_reader(kind: &SinkKind, plan: &Arc<Plan>) -> Result<Box<dyn StoreReader>, StoreError> {
    match kind {
        SinkKind::Sqlite { path } => sqlite::open_reader(path, plan),
        SinkKind::Postgres(target) => postgres::open_reader(target, plan),
        SinkKind::Mysql(target) => mysql::open_reader(target, plan),
        SinkKind::Redis(target) => redis::open_reader(target, plan),
        SinkKind::Elasticsearch(target) => elasticsearch::open_reader(target, plan),
    }
}

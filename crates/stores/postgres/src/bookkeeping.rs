//! What a schema holds beside the rows: each sink's position and epoch, and whose a table is.

use std::sync::Arc;

use onelog_mapping::{EXISTING, HashLength, MappingPlan, Plan};
use onelog_record::Position;
use onelog_store::{Followed, LogPlace, StoreError, StorePosition};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::connection::{BEGIN_WRITE, Pipeline, in_transaction};
use crate::ddl::table;
use crate::error::Fault;
use crate::store::Scope;

/// What every sink in a schema shares. The position's row is rewritten with every batch: free room
/// in its page lets that happen in place.
pub(crate) const POSITIONS: &str = "onelog_position";
pub(crate) const OWNERS: &str = "onelog_tables";

/// Two sinks that start at once must not both make the tables.
const LOCK: i64 = 0x6f6e_656c_6f67; // "onelog"

/// Which sink follows which log, by which mappings, in which schema.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) sink: String,
    pub(crate) log_id: String,
    pub(crate) plan: Arc<Plan>,
    /// A hash of the plan's fingerprint, which can be long.
    pub(crate) plan_id: String,
    pub(crate) schema: String,
    /// The epoch of a sink that is not known.
    pub(crate) first_epoch: u64,
}

impl Identity {
    pub(crate) fn new(sink: &str, log_id: &str, plan: &Arc<Plan>, schema: &str) -> Self {
        Self {
            sink: sink.to_owned(),
            log_id: log_id.to_owned(),
            plan_id: plan_id(plan),
            plan: Arc::clone(plan),
            schema: schema.to_owned(),
            first_epoch: 1,
        }
    }
}

/// Makes the bookkeeping tables where they are missing. Where they are there, no right to make
/// tables is needed.
pub(crate) async fn create_bookkeeping(client: &Client, schema: &str) -> Result<(), Fault> {
    if has_bookkeeping(client, schema).await? {
        return Ok(());
    }
    in_transaction(client, async {
        let sql = format!("SELECT pg_advisory_xact_lock({LOCK})");
        client.batch_execute(&sql).await?;
        let tables = bookkeeping_tables(schema);
        client.batch_execute(&tables).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn has_bookkeeping(client: &Client, schema: &str) -> Result<bool, Fault> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT a.attisdropped
          AND (c.relname, a.attname) IN (($2, 'chain'), ($3, 'made'), ($3, 'shape'))";
    let row = client
        .query_typed_one(
            sql,
            &[
                (&schema, Type::TEXT),
                (&POSITIONS, Type::TEXT),
                (&OWNERS, Type::TEXT),
            ],
        )
        .await?;
    Ok(row.get::<_, i64>(0) == 3)
}

fn bookkeeping_tables(schema: &str) -> String {
    let (positions, owners) = (table(schema, POSITIONS), table(schema, OWNERS));
    format!(
        "CREATE TABLE IF NOT EXISTS {positions} (
           sink text PRIMARY KEY, log_id text NOT NULL, position bigint,
           epoch bigint NOT NULL, plan text NOT NULL, chain bigint) WITH (fillfactor = 10);
         ALTER TABLE {positions} ADD COLUMN IF NOT EXISTS chain bigint;
         CREATE TABLE IF NOT EXISTS {owners} (name text PRIMARY KEY, sink text);
         ALTER TABLE {owners} ADD COLUMN IF NOT EXISTS made boolean NOT NULL DEFAULT true;
         ALTER TABLE {owners} ADD COLUMN IF NOT EXISTS shape text"
    )
}

/// What is recorded of a table that onelog writes or has written.
pub(crate) struct Owner {
    /// `None`: its sink was removed.
    pub(crate) sink: Option<String>,
    /// Not so when the mapping said that the table is there already.
    pub(crate) made: bool,
    /// See [`crate::ddl::shape`].
    pub(crate) shape: Option<String>,
}

pub(crate) async fn table_owner(
    client: &Client,
    identity: &Identity,
    name: &str,
) -> Result<Option<Owner>, Fault> {
    let sql = format!(
        "SELECT sink, made, shape FROM {} WHERE name = $1",
        table(&identity.schema, OWNERS)
    );
    let row = client.query_typed_opt(&sql, &[(&name, Type::TEXT)]).await?;
    Ok(row.map(|row| Owner {
        sink: row.get(0),
        made: row.get(1),
        shape: row.get(2),
    }))
}

/// What is recorded of a table; one that is another sink's, or has a partition that is, is refused.
pub(crate) async fn check_owner(
    client: &Client,
    identity: &Identity,
    name: &str,
) -> Result<Option<Owner>, Fault> {
    let found = table_owner(client, identity, name).await?;
    match found.as_ref().and_then(|owner| owner.sink.as_ref()) {
        Some(owner) if *owner != identity.sink => {
            let fact = format!("it belongs to the sink '{owner}'");
            Err(StoreError::owned(name, owner, fact).into())
        }
        _ => {
            check_partitions(client, identity, name).await?;
            Ok(found)
        }
    }
}

/// A table that another sink writes can become a partition later: its rows are this table's from
/// then on, and a rebuild would delete them.
async fn check_partitions(client: &Client, identity: &Identity, name: &str) -> Result<(), Fault> {
    let sql = format!(
        "SELECT o.name, o.sink FROM pg_catalog.pg_partition_tree(to_regclass($1)) p
         JOIN pg_catalog.pg_class c ON c.oid = p.relid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         JOIN {} o ON o.name = c.relname
         WHERE p.level > 0 AND n.nspname = $2 AND o.sink <> $3 ORDER BY 1 LIMIT 1",
        table(&identity.schema, OWNERS)
    );
    let found = client
        .query_typed_opt(
            &sql,
            &[
                (&table(&identity.schema, name), Type::TEXT),
                (&identity.schema, Type::TEXT),
                (&identity.sink, Type::TEXT),
            ],
        )
        .await?;
    match found {
        None => Ok(()),
        Some(row) => {
            let (partition, owner): (String, String) = (row.get(0), row.get(1));
            let fact = format!("its partition '{partition}' belongs to the sink '{owner}'");
            Err(StoreError::owned(name, &owner, fact).into())
        }
    }
}

/// The shape in which this sink backfilled a table, where it is recorded.
pub(crate) async fn recorded_shape(
    client: &Client,
    identity: &Identity,
    name: &str,
) -> Result<Option<String>, Fault> {
    let sql = format!(
        "SELECT shape FROM {} WHERE name = $1 AND sink = $2",
        table(&identity.schema, OWNERS)
    );
    let row = client
        .query_typed_opt(&sql, &[(&name, Type::TEXT), (&identity.sink, Type::TEXT)])
        .await?;
    Ok(row.and_then(|row| row.get(0)))
}

/// The number of the bookkeeping itself in the catalog: another one where it came out of a copy.
pub(crate) async fn number(client: &Client, identity: &Identity) -> Result<u32, Fault> {
    let owners = table(&identity.schema, OWNERS);
    let row = client
        .query_typed_one(
            "SELECT coalesce(to_regclass($1)::oid, 0::oid)",
            &[(&owners, Type::TEXT)],
        )
        .await?;
    Ok(row.get(0))
}

pub(crate) async fn record_shape(
    client: &Client,
    identity: &Identity,
    name: &str,
    shape: &str,
) -> Result<(), Fault> {
    let sql = format!(
        "UPDATE {} SET shape = $3 WHERE name = $1 AND sink = $2",
        table(&identity.schema, OWNERS)
    );
    client
        .execute_typed(
            &sql,
            &[
                (&name, Type::TEXT),
                (&identity.sink, Type::TEXT),
                (&shape, Type::TEXT),
            ],
        )
        .await?;
    Ok(())
}

fn chain_of(row: &Row, column: usize) -> Option<u32> {
    let chain: Option<i64> = row.get(column);
    chain.and_then(|chain| chain.try_into().ok())
}

impl Identity {
    pub(crate) async fn read_position(
        &self,
        client: &Client,
    ) -> Result<Option<StorePosition>, Fault> {
        let sql = format!(
            "SELECT log_id, position, epoch, chain FROM {}
             WHERE sink = $1 AND plan = $2 AND position IS NOT NULL",
            table(&self.schema, POSITIONS)
        );
        let row = client
            .query_typed_opt(
                &sql,
                &[(&self.sink, Type::TEXT), (&self.plan_id, Type::TEXT)],
            )
            .await?;
        Ok(row.map(|row| StorePosition {
            log_id: row.get(0),
            position: Position(row.get::<_, i64>(1).cast_unsigned()),
            epoch: row.get::<_, i64>(2).cast_unsigned(),
            chain: chain_of(&row, 3),
        }))
    }

    /// What the sink of this name follows, under any plan.
    pub(crate) async fn followed(&self, client: &Client) -> Result<Option<Followed>, Fault> {
        let sql = format!(
            "SELECT log_id, position, chain FROM {} WHERE sink = $1",
            table(&self.schema, POSITIONS)
        );
        let row = client
            .query_typed_opt(&sql, &[(&self.sink, Type::TEXT)])
            .await?;
        Ok(row.map(|row| Followed {
            log_id: row.get(0),
            place: row.get::<_, Option<i64>>(1).map(|position| LogPlace {
                position: Position(position.cast_unsigned()),
                chain: chain_of(&row, 2),
            }),
        }))
    }

    /// Durable at once, so that no crash of the server lets two processes hold one epoch.
    pub(crate) async fn take_over(
        &self,
        client: &Client,
        from: Option<&str>,
    ) -> Result<u64, Fault> {
        let name = table(&self.schema, POSITIONS);
        let sql = format!(
            "INSERT INTO {name} AS p (sink, log_id, position, epoch, plan)
             VALUES ($1, $2, NULL, $5, $3)
             ON CONFLICT (sink) DO UPDATE SET epoch = p.epoch + 1, plan = excluded.plan,
               log_id = excluded.log_id, position = CASE
                 WHEN p.plan = excluded.plan AND p.log_id = excluded.log_id THEN p.position END
               WHERE p.log_id IN (excluded.log_id, $4)
             RETURNING epoch"
        );
        in_transaction(client, async {
            client
                .batch_execute("SET LOCAL synchronous_commit = on")
                .await?;
            let row = client
                .query_typed_opt(
                    &sql,
                    &[
                        (&self.sink, Type::TEXT),
                        (&self.log_id, Type::TEXT),
                        (&self.plan_id, Type::TEXT),
                        (&from, Type::TEXT),
                        (&self.first_epoch.cast_signed(), Type::INT8),
                    ],
                )
                .await?;
            let Some(row) = row else {
                return Err(Fault::Store(StoreError::OtherLog {
                    ours: self.log_id.clone(),
                    found: self
                        .followed(client)
                        .await?
                        .map_or_else(String::new, |found| found.log_id),
                }));
            };
            let mappings = self.plan.mappings.iter();
            let named: Vec<&str> = mappings.map(|mapping| &*mapping.into).collect();
            self.release_tables(client, &named).await?;
            Ok(row.get::<_, i64>(0).cast_unsigned())
        })
        .await
    }

    /// Gives up the tables of the sink but for these: others may write to them from now on, and coming
    /// back, the sink has to ask as for any table that is there. What onelog has not made, or is there
    /// no longer, no later sink may take for its own.
    async fn release_tables(&self, client: &Client, kept: &[&str]) -> Result<(), Fault> {
        let owners = table(&self.schema, OWNERS);
        let left = "sink = $1 AND name <> ALL ($2)";
        let gone = "to_regclass(format('%I.%I', $3, name)) IS NULL";
        let delete = format!("DELETE FROM {owners} WHERE {left} AND (NOT made OR {gone})");
        let release = format!("UPDATE {owners} SET sink = NULL WHERE {left}");
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&self.sink, Type::TEXT),
            (&kept, Type::TEXT_ARRAY),
            (&self.schema, Type::TEXT),
        ];
        client.execute_typed(&delete, &parameters).await?;
        client.execute_typed(&release, &parameters[..2]).await?;
        Ok(())
    }
}

/// The place of the position's UPDATE among the statements of a transaction.
pub(crate) const ADVANCE: usize = 1;

impl<'a> Scope<'a> {
    /// Sends the beginning of a transaction and the position's move, which locks the sink's row. It
    /// meets no row when the position is not ours to move from there.
    pub(crate) fn advance_position(
        &self,
        pipeline: &mut Pipeline<'a>,
        from: Position,
        to: LogPlace,
    ) -> Result<(), Fault> {
        let client = self.client;
        let advance = format!(
            "UPDATE {} SET position = $1, chain = $7
             WHERE sink = $2 AND epoch = $3 AND position = $4 AND log_id = $5 AND plan = $6",
            table(&self.identity.schema, POSITIONS)
        );
        let (from, chain) = (signed(from)?, to.chain.map(i64::from));
        let to = signed(to.position)?;
        let (identity, epoch) = (self.identity, self.epoch.cast_signed());
        pipeline.send(async move { client.batch_execute(&BEGIN_WRITE).await.map(|()| 0) });
        debug_assert_eq!(pipeline.len(), ADVANCE);
        pipeline.send(async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 7] = [
                (&to, Type::INT8),
                (&identity.sink, Type::TEXT),
                (&epoch, Type::INT8),
                (&from, Type::INT8),
                (&identity.log_id, Type::TEXT),
                (&identity.plan_id, Type::TEXT),
                (&chain, Type::INT8),
            ];
            client.execute_typed(&advance, &parameters).await
        });
        Ok(())
    }

    /// Why the position's UPDATE met no row; in its transaction.
    pub(crate) async fn position_mismatch(&self, expected: Position) -> Fault {
        if let Err(fault) = self.check_epoch().await {
            return fault;
        }
        match self.identity.read_position(self.client).await {
            Ok(found) => Fault::Store(StoreError::PositionMismatch {
                expected: Some(expected),
                found,
            }),
            Err(fault) => fault,
        }
    }

    /// Locks the sink's row against a takeover until the transaction ends.
    pub(crate) async fn check_epoch(&self) -> Result<(), Fault> {
        let sql = format!(
            "SELECT epoch FROM {} WHERE sink = $1 FOR UPDATE",
            table(&self.identity.schema, POSITIONS)
        );
        let row = self
            .client
            .query_typed_opt(&sql, &[(&self.identity.sink, Type::TEXT)])
            .await?;
        let found = row.map(|row| row.get::<_, i64>(0).cast_unsigned());
        Err(Fault::Store(match found {
            Some(found) if found == self.epoch => return Ok(()),
            Some(found) => StoreError::of_epoch(self.epoch, found),
            None => StoreError::PositionMismatch {
                expected: None,
                found: None,
            },
        }))
    }

    pub(crate) async fn set_position(&self, place: LogPlace) -> Result<(), Fault> {
        let sql = format!(
            "UPDATE {} SET position = $2, log_id = $3, plan = $4, chain = $5 WHERE sink = $1",
            table(&self.identity.schema, POSITIONS)
        );
        self.client
            .execute_typed(
                &sql,
                &[
                    (&self.identity.sink, Type::TEXT),
                    (&signed(place.position)?, Type::INT8),
                    (&self.identity.log_id, Type::TEXT),
                    (&self.identity.plan_id, Type::TEXT),
                    (&place.chain.map(i64::from), Type::INT8),
                ],
            )
            .await?;
        Ok(())
    }

    /// Records that the table is this sink's, unless it became another one's since it was looked at;
    /// what onelog did not make once stays so.
    pub(crate) async fn record_owner(&self, mapping: &MappingPlan) -> Result<(), Fault> {
        let sql = format!(
            "INSERT INTO {} AS t (name, sink, made) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET sink = excluded.sink, made = t.made AND excluded.made,
               shape = NULL
             WHERE t.sink IS NULL OR t.sink = excluded.sink",
            table(&self.identity.schema, OWNERS)
        );
        let recorded = self
            .client
            .execute_typed(
                &sql,
                &[
                    (&mapping.into, Type::TEXT),
                    (&self.identity.sink, Type::TEXT),
                    (&!mapping.options.flag(EXISTING), Type::BOOL),
                ],
            )
            .await?;
        match recorded {
            0 => check_owner(self.client, self.identity, &mapping.into)
                .await
                .map(drop),
            _ => Ok(()),
        }
    }

    /// Forgets the sink; its rows stay.
    pub(crate) async fn forget_sink(&self) -> Result<(), Fault> {
        let positions = table(&self.identity.schema, POSITIONS);
        self.identity.release_tables(self.client, &[]).await?;
        let sql = format!("DELETE FROM {positions} WHERE sink = $1");
        self.client
            .execute_typed(&sql, &[(&self.identity.sink, Type::TEXT)])
            .await?;
        Ok(())
    }
}

/// A position as PostgreSQL's bigint.
fn signed(position: Position) -> Result<i64, Fault> {
    i64::try_from(position.get()).map_err(|cause| {
        Fault::Store(StoreError::Broken {
            what: format!("position {position} does not fit into a bigint"),
            cause: cause.into(),
        })
    })
}

pub(crate) fn plan_id(plan: &Plan) -> String {
    plan.fingerprint_hash(HashLength::Half, None)
}

#[cfg(test)]
mod tests {
    use onelog_store::{StoreKind as _, conformance};

    use super::*;

    #[test]
    fn the_id_of_a_plan_that_databases_keep_has_not_changed() {
        const MAPPING: &str = r#"{"table":"shop.orders","into":"o","columns":{
            "id":{"from":"$key","type":"text"},"n":{"from":"/n","type":"real"}}}"#;
        let plan = conformance::plan_by(crate::KIND.rules(), MAPPING);
        assert_eq!(plan_id(&plan), "5be99f81b29061b6cbab024f46fb0a95");
    }
}

//! Whose tables are whose, and the bookkeeping tables themselves.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::error::Fault;
use super::fit::{self, Fit, Found, TableFacts};
use super::{Own, in_transaction, schema};
use onelog_mapping::{EXISTING, MappingPlan};
use onelog_store::StoreError;

/// Two sinks that start at once must not both make the tables.
const LOCK: i64 = 0x6f6e_656c_6f67; // "onelog"

/// Makes the bookkeeping tables where they are missing. Where they are there, no right to make
/// tables is needed.
pub(super) async fn make_bookkeeping(client: &Client, schema: &str) -> Result<(), Fault> {
    if bookkeeping_is_there(client, schema).await? {
        return Ok(());
    }
    in_transaction(client, async {
        let sql = format!("SELECT pg_advisory_xact_lock({LOCK})");
        client.batch_execute(&sql).await?;
        let tables = schema::bookkeeping(schema);
        client.batch_execute(&tables).await?;
        Ok(())
    })
    .await
}

async fn bookkeeping_is_there(client: &Client, schema: &str) -> Result<bool, Fault> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT a.attisdropped
          AND (c.relname, a.attname) IN (($2, 'sink'), ($3, 'made'))";
    let row = client
        .query_typed_one(
            sql,
            &[
                (&schema, Type::TEXT),
                (&schema::POSITIONS, Type::TEXT),
                (&schema::OWNERS, Type::TEXT),
            ],
        )
        .await?;
    Ok(row.get::<_, i64>(0) == 2)
}

/// What stands where a mapping's rows go, when the sink may have the name.
pub(super) enum Standing {
    /// Nothing.
    Absent,
    /// A table that can be filled as it is.
    Fits(Fit),
    /// A table that onelog made, and that no longer fits: another one takes its place.
    Outgrown,
}

/// Refuses names that this sink may not have: whatever onelog did not make, or fills for another
/// sink. An empty table that fits may be filled, and any that the mapping calls its own.
pub(super) async fn standing(
    client: &Client,
    own: &Own,
    mapping: &MappingPlan,
) -> Result<Standing, Fault> {
    let bad = fit::bad_names(mapping);
    if !bad.is_empty() {
        return Err(misfit(mapping, &bad));
    }
    let taken = |what: String| {
        Err(Fault::Store(StoreError::NotOwner {
            into: mapping.into.clone(),
            what,
        }))
    };
    let owner = owner(client, own, &mapping.into).await?;
    if let Some(Owner {
        sink: Some(sink), ..
    }) = &owner
        && *sink != own.sink
    {
        return taken(format!(
            "it belongs to the sink '{sink}'; choose another name for 'into'"
        ));
    }
    let made = owner.is_some_and(|owner| owner.made);
    let existing = mapping.options.flag(EXISTING);
    let facts = match fit::look(client, &own.schema, &mapping.into).await? {
        Found::Nothing if existing => {
            return Err(misfit(
                mapping,
                &["it is not there, and the mapping says 'existing'; create it".to_owned()],
            ));
        }
        Found::Nothing => return Ok(Standing::Absent),
        Found::Other(kind) => {
            return taken(format!(
                "a {kind} of this name is there that onelog did not make; choose another name for 'into'"
            ));
        }
        Found::Table(facts) => facts,
    };
    match facts.fit(mapping) {
        Ok(fit) if existing || made || facts.is_empty => Ok(Standing::Fits(fit)),
        Ok(_) => taken(not_ours("it has rows")),
        Err(why) if existing => Err(misfit(mapping, &why)),
        Err(_) if made => Ok(Standing::Outgrown),
        Err(mut why) => {
            if !facts.is_empty {
                why.insert(0, "it has rows".to_owned());
            }
            taken(not_ours(&why.join("; ")))
        }
    }
}

fn not_ours(why: &str) -> String {
    format!(
        "a table of this name is there that onelog did not make ({why}); choose another name for 'into', drop the table, or let the mapping say \"existing\": true to fill it as it is"
    )
}

/// What is noted of a table that onelog fills or has filled.
struct Owner {
    /// `None`: its sink was removed.
    sink: Option<String>,
    /// Not so when the mapping said that the table is there already.
    made: bool,
}

async fn owner(client: &Client, own: &Own, name: &str) -> Result<Option<Owner>, Fault> {
    let sql = format!(
        "SELECT sink, made FROM {} WHERE name = $1",
        schema::table(&own.schema, schema::OWNERS)
    );
    let row = client.query_typed_opt(&sql, &[(&name, Type::TEXT)]).await?;
    Ok(row.map(|row| Owner {
        sink: row.get(0),
        made: row.get(1),
    }))
}

/// How the mapping fits the table that is there.
pub(super) async fn shape(client: &Client, own: &Own, mapping: &MappingPlan) -> Result<Fit, Fault> {
    let wrong = match fit::look(client, &own.schema, &mapping.into).await? {
        Found::Nothing => vec!["it is not there".to_owned()],
        Found::Other(kind) => vec![format!("a {kind} has its name")],
        Found::Table(facts) => match facts.fit(mapping) {
            Ok(fit) => {
                warn_of_triggers(own, mapping, &facts);
                return Ok(fit);
            }
            Err(wrong) => wrong,
        },
    };
    Err(misfit(mapping, &wrong))
}

fn warn_of_triggers(own: &Own, mapping: &MappingPlan, facts: &TableFacts) {
    if !facts.triggers.is_empty() {
        tracing::warn!(
            sink = own.sink,
            table = mapping.into,
            triggers = facts.triggers.join(", "),
            "the table has row triggers, which run for every row that onelog writes; one that changes these rows makes them differ from the log"
        );
    }
}

pub(super) fn misfit(mapping: &MappingPlan, what: &[String]) -> Fault {
    Fault::Store(StoreError::SchemaMismatch {
        into: mapping.into.clone(),
        what: what.join("; "),
    })
}

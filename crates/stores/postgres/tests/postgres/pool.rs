//! A pool between onelog and the server, which hands every transaction to another session of the
//! server, and the session to other clients afterwards.

use std::sync::Arc;

use onelog_mapping::Plan;
use onelog_store::conformance::{self, Capabilities, Harness, LOG, backfilled, standard_plan};
use onelog_store::{Store, StoreError};
use onelog_testkit::{Kind, PgBouncer, Server as _, require};

use super::harness::{Pg, server};

/// An empty schema, which is reached through a pool and looked at without it.
struct Pooled(Pg);

impl Pooled {
    fn new(pool: &PgBouncer) -> Self {
        let direct = Pg::new();
        Self(Pg::at(&pool.url(), &direct.schema))
    }
}

impl Harness for Pooled {
    fn open_as(&self, sink: &str, plan: Arc<Plan>, log_id: &str) -> Box<dyn Store> {
        Harness::open_as(&self.0, sink, plan, log_id)
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn kind(&self) -> &'static dyn onelog_store::StoreKind {
        self.0.kind()
    }
}

#[test]
fn the_contract_is_kept_through_a_pool_of_transactions() {
    require!(Kind::Postgres, Kind::Pgbouncer);
    let pool = PgBouncer::in_front_of(server(), &["default_pool_size=8"]);
    conformance::all(&|| Box::new(Pooled::new(&pool)));
}

#[test]
fn nothing_of_ours_stays_in_a_session_that_a_pool_hands_to_others() {
    require!(Kind::Postgres, Kind::Pgbouncer);
    // One session for all.
    let pool = PgBouncer::in_front_of(server(), &["default_pool_size=1"]);
    let left = || {
        pool.sql(
            "SELECT coalesce(string_agg(name || '=' || setting, ','), '') FROM pg_settings
               WHERE source = 'session'
             UNION ALL SELECT count(*)::text FROM pg_prepared_statements
             UNION ALL SELECT count(*)::text FROM pg_locks
               WHERE locktype = 'advisory' AND pid = pg_backend_pid()
             UNION ALL SELECT count(*)::text FROM pg_class
               WHERE relnamespace = pg_my_temp_schema()
             UNION ALL SELECT current_setting('synchronous_commit')
             UNION ALL SELECT current_setting('statement_timeout')",
        )
    };
    let before = left();
    let pooled = Pooled::new(&pool);
    let plan = standard_plan(&pooled);
    let (mut store, mut model) = backfilled(&pooled, &plan);
    let from = model.position();
    model.order("a", 7, "by a batch");
    store.apply(&model.batch(&plan, from)).unwrap();
    let at = store.position().unwrap().unwrap().position;
    assert_eq!(at, model.position());
    assert_eq!(left(), before);
    // Also when a batch had to go change by change, and was refused.
    server().sql(&format!(
        "ALTER TABLE {}.orders ADD CHECK (total < 100)",
        pooled.0.quoted()
    ));
    model.order("a", 100, "too much");
    let refused = store.apply(&model.batch(&plan, at));
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(left(), before);
}

#[test]
fn a_pool_of_single_statements_is_refused_by_name() {
    require!(Kind::Postgres, Kind::Pgbouncer);
    let pool = PgBouncer::in_front_of(server(), &["pool_mode=statement"]);
    let pooled = Pooled::new(&pool);
    let error = pooled
        .0
        .try_open(&standard_plan(&Pg::new()), LOG)
        .err()
        .unwrap();
    assert!(matches!(error, StoreError::Broken { .. }), "{error}");
    assert!(
        error.to_string().contains("pool_mode = transaction"),
        "{error}"
    );
}

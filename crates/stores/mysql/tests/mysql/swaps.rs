//! Rebuilds: who reads, who rivals, what is left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use onelog_store::conformance::{self, LOG, Model, backfilled, standard_plan};
use onelog_store::{Change, Guard, Store as _, StoreError, failpoint, verify};
use onelog_testkit::{Kind, require};

use crate::harness::{Database, server};

#[test]
fn a_snapshot_outlives_many_rebuilds_and_then_nothing_is_left_of_the_old_tables() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let (mut store, mut model) = backfilled(&database, &plan);
    let before = model.clone();
    let mut snapshot = store.reader().unwrap();
    // This one is taken while the next generation is being backfilled.
    store.begin_rebuild().unwrap();
    let half: Vec<Change> =
        model.batch(&plan, onelog_record::Position::ZERO).changes[0][..1].to_vec();
    store.load(0, &half).unwrap();
    let mut late = store.reader().unwrap();
    store.finish_rebuild(model.place()).unwrap();
    for n in 0..3 {
        model.order("more", n, "rows");
        model.rebuild(&plan, store.as_mut()).unwrap();
        for snapshot in [&mut snapshot, &mut late] {
            let found = verify(&plan, &before, snapshot.as_mut()).unwrap();
            assert!(found.equal, "{found:#?}");
        }
    }
    assert!(model.verify(&plan, store.as_mut()).equal);
    assert_ne!(database.sql("SHOW TABLES LIKE 'onelog\\_old%'"), "");
    drop((snapshot, late));
    // The server takes a moment to notice; every rebuild and takeover tries again.
    for _ in 0..30 {
        store.take_over().unwrap();
        if database.sql("SHOW TABLES LIKE 'onelog\\_old%'").is_empty() {
            break;
        }
    }
    assert_eq!(database.sql("SHOW TABLES LIKE 'onelog\\_old%'"), "");
    assert_eq!(database.sql("SHOW TABLES LIKE 'onelog\\_new%'"), "");
    assert_eq!(
        database
            .sql("SHOW TABLES LIKE 'onelog\\_pin%'")
            .lines()
            .count(),
        1
    );
}

#[test]
fn a_zombie_that_wakes_right_before_its_swap_changes_nothing() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let sink = "sleeper";
    let mut zombie = database.store(sink, LOG, Arc::clone(&plan)).unwrap();
    zombie.take_over().unwrap();
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.rebuild(&plan, &mut zombie).unwrap();
    let before = model.clone();
    model.order("b", 2, "two");
    // In the middle of the zombie's last step a rival takes over.
    let place = format!("{sink}:before_swap");
    let (target, rival_plan) = (database.target(), Arc::clone(&plan));
    failpoint::set(&place, move || {
        let mut rival =
            onelog_mysql::MysqlStore::open(&target, sink, LOG, Arc::clone(&rival_plan)).unwrap();
        rival.take_over().unwrap();
    });
    let error = model.rebuild(&plan, &mut zombie).unwrap_err();
    failpoint::clear(&place);
    assert!(
        matches!(error, StoreError::Fenced { ours: 1, found: 2 }),
        "{error}"
    );
    let mut third = database.store(sink, LOG, Arc::clone(&plan)).unwrap();
    let found = third.position().unwrap().unwrap();
    assert_eq!((found.position, found.epoch), (before.position(), 2));
    assert!(before.verify(&plan, &mut third).equal);
    assert_eq!(third.take_over().unwrap(), 3);
    model.rebuild(&plan, &mut third).unwrap();
    assert!(model.verify(&plan, &mut third).equal);
}

#[test]
fn a_zombie_that_swaps_in_the_middle_of_a_takeover_is_taken_over_all_the_same() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let sink = "overtaken";
    let mut zombie = database.store(sink, LOG, Arc::clone(&plan)).unwrap();
    zombie.take_over().unwrap();
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.rebuild(&plan, &mut zombie).unwrap();
    model.order("b", 2, "two");
    let (checked, zombie_checked) = mpsc::channel();
    let (wake, woken) = mpsc::channel();
    let (done, zombie_done) = mpsc::channel();
    let woken = Mutex::new(woken);
    let zombie_done = Mutex::new(zombie_done);
    // The zombie has looked at the epoch and sleeps until the rival has raised it …
    let swap = format!("{sink}:before_swap");
    failpoint::set(&swap, move || {
        checked.send(()).unwrap();
        woken.lock().unwrap().recv().unwrap();
    });
    // … who then waits until the zombie's tables are in place, with the zombie's mark.
    let raised = format!("{sink}:raised");
    let once = AtomicBool::new(true);
    failpoint::set(&raised, move || {
        if once.swap(false, Ordering::Relaxed) {
            wake.send(()).unwrap();
            zombie_done.lock().unwrap().recv().unwrap();
        }
    });
    let mut rival = database.store(sink, LOG, Arc::clone(&plan)).unwrap();
    std::thread::scope(|scope| {
        let (zombie, model, plan) = (&mut zombie, &model, &plan);
        scope.spawn(move || {
            model.rebuild(plan, zombie).unwrap();
            done.send(()).unwrap();
        });
        zombie_checked.recv().unwrap();
        assert_eq!(rival.take_over().unwrap(), 2);
    });
    failpoint::clear(&swap);
    failpoint::clear(&raised);
    let from = model.position();
    model.order("c", 3, "three");
    let batch = model.batch(&plan, from);
    let error = zombie.apply(&batch).unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    rival.apply(&batch).unwrap();
    assert!(model.verify(&plan, &mut rival).equal);
}

#[test]
fn a_process_that_dies_around_the_swap_leaves_one_generation_whole() {
    require!(Kind::Mariadb);
    for (event, swapped) in [("before_swap", false), ("after_swap", true)] {
        let database = Database::new();
        let plan = standard_plan(&database);
        let sink = format!("dies-{event}").replace('_', "-");
        let mut store = database.store(&sink, LOG, Arc::clone(&plan)).unwrap();
        store.take_over().unwrap();
        let mut model = Model::default();
        model.order("a", 1, "one");
        model.rebuild(&plan, &mut store).unwrap();
        let before = model.clone();
        model.order("a", 2, "two");
        let place = format!("{sink}:{event}");
        failpoint::set(&place, || panic!("the planned failure"));
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = model.rebuild(&plan, &mut store);
        }));
        failpoint::clear(&place);
        assert!(died.is_err());
        drop(store);
        let mut store = database.store(&sink, LOG, Arc::clone(&plan)).unwrap();
        let expected = if swapped { &model } else { &before };
        assert!(expected.verify(&plan, &mut store).equal, "{event}");
        assert_eq!(
            store.position().unwrap().unwrap().position,
            expected.position()
        );
        assert_eq!(store.take_over().unwrap(), 2);
        assert_eq!(database.sql("SHOW TABLES LIKE 'onelog\\_new%'"), "");
        assert_eq!(database.sql("SHOW TABLES LIKE 'onelog\\_old%'"), "");
        model.rebuild(&plan, &mut store).unwrap();
        assert!(model.verify(&plan, &mut store).equal);
    }
}

#[test]
fn a_sink_that_was_removed_and_made_again_is_rebuilt_over_what_was_left() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let (mut store, mut model) = backfilled(&database, &plan);
    // A snapshot of the first life keeps its tables, and their names, through the second.
    let before = model.clone();
    let mut snapshot = store.reader().unwrap();
    model.order("d", 4, "four");
    model.rebuild(&plan, store.as_mut()).unwrap();
    store.remove().unwrap();
    assert!(verify(&plan, &before, snapshot.as_mut()).unwrap().equal);
    drop(snapshot);
    assert_eq!(store.take_over().unwrap(), 1);
    for n in 0..4 {
        model.order("e", n, "again");
        model.rebuild(&plan, store.as_mut()).unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
    }
}

#[test]
fn a_table_that_vanished_is_named_by_the_reader() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let (mut store, model) = backfilled(&database, &plan);
    database.sql("DROP TABLE orders");
    let mut snapshot = store.reader().unwrap();
    let error = verify(&plan, &model, snapshot.as_mut()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the table 'orders' in the store does not fit"),
        "{error}"
    );
}

#[test]
fn a_user_in_a_transaction_holds_a_swap_up_and_is_not_held_up_by_it() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    let (mut store, mut model) = backfilled(&database, &plan);
    model.order("d", 4, "four");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let options = mysql_async::Opts::from_url(database.target().server.url.as_written()).unwrap();
    let mut user = runtime.block_on(mysql_async::Conn::new(options)).unwrap();
    let mut query = |sql: &str| {
        use mysql_async::prelude::Queryable as _;
        runtime
            .block_on(user.query_first::<i64, _>(sql.to_owned()))
            .unwrap()
    };
    query("START TRANSACTION");
    assert_eq!(query("SELECT count(*) FROM orders"), Some(3));
    let (swapped, waits) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (store, model, plan) = (&mut store, &model, &plan);
        scope.spawn(move || {
            model.rebuild(plan, store.as_mut()).unwrap();
            swapped.send(()).unwrap();
        });
        // The swap waits for the reader, who goes on with the same rows.
        while database.sql(
            "SELECT count(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'RENAME TABLE%'",
        ) == "0"
        {}
        assert!(waits.try_recv().is_err());
        assert_eq!(query("SELECT count(*) FROM orders"), Some(3));
        query("COMMIT");
        waits.recv().unwrap();
    });
    assert!(model.verify(&plan, store.as_mut()).equal);
}

#[test]
fn a_sink_that_sleeps_right_before_its_swap_never_carries_the_table_of_another_sink_away() {
    require!(Kind::Mariadb);
    let database = Database::new();
    let plan = standard_plan(&database);
    // given a table that a removed sink has left, and a sink that is about to replace it,
    let (mut former, _) = backfilled(&database, &plan);
    former.remove().unwrap();
    let mut model = Model::default();
    model.order("a", 1, "one");
    let mut sleeper = database.store("dozing", LOG, Arc::clone(&plan)).unwrap();
    sleeper.take_over().unwrap();
    // when another sink wants the table in that moment,
    let refused = Arc::new(Mutex::new(None));
    let place = "dozing:before_swap";
    let (target, rival_plan, rival_model) = (database.target(), Arc::clone(&plan), model.clone());
    let error = Arc::clone(&refused);
    failpoint::set(place, move || {
        let plan = Arc::clone(&rival_plan);
        let mut rival =
            onelog_mysql::MysqlStore::open(&target, "awake", LOG, Arc::clone(&plan)).unwrap();
        rival.take_over().unwrap();
        *error.lock().unwrap() = rival_model.rebuild(&plan, &mut rival).err();
    });
    model.rebuild(&plan, &mut sleeper).unwrap();
    failpoint::clear(place);
    // then it is refused, and the table is the first one's.
    let error = refused.lock().unwrap().take().unwrap();
    assert!(
        matches!(&error, StoreError::NotOwner { what, .. } if what.contains("'dozing'")),
        "{error}"
    );
    assert!(model.verify(&plan, &mut sleeper).equal);
    // A name that a sink no longer writes is free once its table is dropped.
    let other = onelog_store::conformance::plan(
        &database,
        r#"{"table":"shop.orders","into":"elsewhere","columns":{"id":{"from":"$key","type":"text"}}}"#,
    );
    let mut moved = database.store("dozing", LOG, Arc::clone(&other)).unwrap();
    moved.take_over().unwrap();
    model.rebuild(&other, &mut moved).unwrap();
    database.sql("DROP TABLE orders");
    let mut heir = database.store("awake", LOG, Arc::clone(&plan)).unwrap();
    heir.check_target().unwrap();
    heir.take_over().unwrap();
    model.rebuild(&plan, &mut heir).unwrap();
    assert!(model.verify(&plan, &mut heir).equal);
}

#[test]
fn rows_that_others_write_until_the_exchange_are_counted_behind_it_and_it_is_undone() {
    require!(Kind::Mariadb);
    let other_key = r#"{"table":"shop.orders","into":"orders","columns":{
        "number":{"from":"$key","type":"text"},"total":{"from":"/total","type":"integer"}}}"#;
    for (sink, next) in [("counts-keys", None), ("counts-rows", Some(other_key))] {
        // Given a backfill that is about to put its tables in place,
        let database = Database::new();
        let plan = standard_plan(&database);
        let is_same = next.is_none();
        let next = next.map_or_else(|| plan.clone(), |next| conformance::plan(&database, next));
        let mut store = database.store(sink, LOG, Arc::clone(&plan)).unwrap();
        store.take_over().unwrap();
        let mut model = Model::default();
        model.order("a", 1, "one");
        model.rebuild(&plan, &mut store).unwrap();
        let before = model.clone();
        model.order("b", 2, "two");
        let mut store = database.store(sink, LOG, Arc::clone(&next)).unwrap();
        store.take_over().unwrap();
        // when others write rows in that moment, one of them with a key of the log's,
        let place = format!("{sink}:before_swap");
        let name = database.name.clone();
        failpoint::set(&place, move || {
            server().sql(&format!(
                "USE {name}; INSERT IGNORE INTO orders (id) SELECT IF(seq = 1, 'b', CONCAT('mine', seq)) FROM seq_1_to_51"
            ));
        });
        model.load(&next, &mut store).unwrap();
        store.guard(&[Guard::Deletes(49), Guard::Anything]);
        let error = store.finish_rebuild(model.place()).unwrap_err();
        // then the old tables are back with all of it where so many may not be deleted,
        assert!(
            matches!(
                error,
                StoreError::Guarded {
                    rows: 52,
                    deletes: 50,
                    changes: 0,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(database.sql("SELECT COUNT(*) FROM orders"), "52");
        let found = store.position().unwrap().map(|found| found.position);
        assert_eq!(found, is_same.then(|| before.position()));
        assert_eq!(database.sql("SHOW TABLES LIKE 'onelog\\_old%'"), "");
        // and go where they may.
        store.take_over().unwrap();
        model.load(&next, &mut store).unwrap();
        store.guard(&[Guard::Deletes(50), Guard::Anything]);
        store.finish_rebuild(model.place()).unwrap();
        failpoint::clear(&place);
        assert!(model.verify(&next, &mut store).equal);
    }
}

//! Lost positions, takeovers, rebuilds that ended, snapshots.

use std::ops::ControlFlow;
use std::sync::Arc;

use onelog_mapping::Row;
use onelog_record::Position;
use onelog_redis::RedisStore;
use onelog_store::conformance::{self, Harness, LOG, Model, ORDERS, SINK, backfilled};
use onelog_store::{Address, Batch, Change, Store, StoreError, failpoint, verify};
use onelog_testkit::{Kind, require};

use crate::harness::{OneServer, RedisShape, shaped};

#[test]
fn a_lost_position_is_not_position_0_and_what_was_left_goes() {
    require!(Kind::Redis);
    for lose in ["DEL onelog:position:follower", "FLUSHDB"] {
        let server = OneServer::new();
        let plan = conformance::standard_plan(&server);
        let (mut store, mut model) = backfilled(&server, &plan);
        let from = model.position();
        model.write(ORDERS, b"a", None);
        let batch = model.batch(&plan, from);
        server.command(&lose.split(' ').collect::<Vec<_>>());
        assert_eq!(store.position().unwrap(), None);
        let error = store.apply(&batch).unwrap_err();
        assert!(
            matches!(error, StoreError::PositionMismatch { found: None, .. }),
            "{error}"
        );
        let mut store = server.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        assert_eq!(store.position().unwrap(), None);
        model.rebuild(&plan, store.as_mut()).unwrap();
        assert!(model.verify(&plan, store.as_mut()).equal);
        assert_eq!(server.command(&["EXISTS", "orders:a"]).trim_end(), "0");
    }
}

/// The step itself finds out, not only the look before it.
#[test]
fn another_process_that_takes_over_between_looking_and_writing_fences_the_step() {
    require!(Kind::Redis);
    const SLEEPER: &str = "sleeper";
    for partitions in [None, Some(5)] {
        let server = Arc::new(OneServer::with(RedisShape::String, partitions));
        let plan = conformance::standard_plan(server.as_ref());
        let open = || RedisStore::open(&server.target, SLEEPER, LOG, Arc::clone(&plan)).unwrap();
        let mut model = Model::default();
        model.order("a", 1, "one");
        let mut store = open();
        let mut epoch = store.take_over().unwrap();
        model.rebuild(&plan, &mut store).unwrap();
        let rival = {
            let server = Arc::clone(&server);
            move || {
                for name in server
                    .command(&["KEYS", "*onelog:position:sleeper"])
                    .lines()
                {
                    server.command(&["HINCRBY", name, "epoch", "1"]);
                }
            }
        };
        let refuses = |store: &mut RedisStore, batch: &Batch, epoch: u64| {
            let error = store.apply(batch).unwrap_err();
            assert!(
                matches!(error, StoreError::Fenced { ours, found } if ours == epoch && found == epoch + 1),
                "{error}"
            );
            assert_eq!(server.command(&["KEYS", "*late*"]), "");
        };

        // Behind a step, whose answer said that all was well.
        let from = model.position();
        model.order("b", 2, "two");
        store.apply(&model.batch(&plan, from)).unwrap();
        let (before, from) = (model.clone(), model.position());
        model.order("late", 3, "three");
        let batch = model.batch(&plan, from);
        rival();
        refuses(&mut store, &batch, epoch);

        // Behind a look of its own.
        epoch = store.take_over().unwrap();
        let place = format!("{SLEEPER}:before_commit");
        failpoint::set(&place, rival);
        refuses(&mut store, &batch, epoch);
        failpoint::clear(&place);
        assert!(before.verify(&plan, &mut store).equal);
    }
}

#[test]
fn nothing_of_a_rebuild_is_left_behind() {
    require!(Kind::Redis);
    for partitions in [None, Some(5)] {
        let server = OneServer::with(RedisShape::String, partitions);
        let plan = conformance::standard_plan(&server);
        let (mut store, model) = backfilled(&server, &plan);
        let bookkeeping = 1 + partitions.unwrap_or(1) as usize;
        let keys = || server.command(&["DBSIZE"]).trim().parse::<usize>().unwrap();
        assert_eq!(keys(), 3 + bookkeeping);
        store.begin_rebuild().unwrap();
        let rows: Vec<Change> = model.batch(&plan, Position::ZERO).changes.remove(0);
        store.load(0, &rows).unwrap();
        assert!(keys() > 6 + bookkeeping);
        // The next owner cleans up.
        let mut store = server.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        assert_eq!(keys(), 3 + bookkeeping);
        store.remove().unwrap();
        assert_eq!(keys(), 3 + 1);
    }
}

#[test]
fn a_snapshot_is_the_same_however_much_is_written_meanwhile() {
    require!(Kind::Redis);
    for (shape, partitions) in [
        (RedisShape::String, None),
        (RedisShape::Hash, None),
        (RedisShape::String, Some(4)),
    ] {
        let server = OneServer::with(shape, partitions);
        let plan = conformance::standard_plan(&server);
        let mut model = Model::default();
        for n in 0..5000 {
            model.order(&format!("k{n}"), n, "before");
        }
        let mut store = server.open(Arc::clone(&plan), LOG);
        store.take_over().unwrap();
        model.rebuild(&plan, store.as_mut()).unwrap();
        let before = model.clone();
        let mut snapshot = store.reader().unwrap();
        let mut rounds = 0;
        let mut written = 0;
        // Between any two rows that are read, rows before and behind them change.
        let each = &mut |_: &Row| {
            written += 1;
            if written % 500 == 0 && rounds < 60 {
                let from = model.position();
                for n in 0..300 {
                    let key = format!("k{}", (n * 37 + rounds * 101) % 5500);
                    match (n + rounds) % 3 {
                        0 => model.write(ORDERS, key.as_bytes(), None),
                        _ => model.order(&key, -n, "after"),
                    }
                }
                rounds += 1;
                store.apply(&model.batch(&plan, from)).unwrap();
            }
            ControlFlow::Continue(())
        };
        snapshot.scan(0, each).unwrap();
        assert_eq!((written, rounds), (5000, 10));
        model.rebuild(&plan, store.as_mut()).unwrap();
        let found = verify(&plan, &before, snapshot.as_mut()).unwrap();
        assert!(found.equal, "{shape:?} {partitions:?} {found:#?}");
        assert!(model.verify(&plan, store.as_mut()).equal);
        // A process whose writes this one cannot see ends the snapshot.
        let mut other = server.target.clone();
        other.server.url = Address::from(
            other
                .server
                .url
                .as_written()
                .replace("127.0.0.1", "localhost")
                .as_str(),
        );
        let mut other =
            RedisStore::open(&other, SINK, LOG, shaped(Arc::clone(&plan), shape)).unwrap();
        other.take_over().unwrap();
        let error = verify(&plan, &before, snapshot.as_mut())
            .unwrap_err()
            .to_string();
        assert!(error.contains("another process"), "{error}");
    }
}

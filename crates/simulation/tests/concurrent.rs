//! Threads against a real node on a real disk: every workload, with checkpoints and rolls during
//! the run, the node stopped under load, opened again, and the whole history proved.

#![allow(clippy::unwrap_used, clippy::panic)]

use onelog::{Node, Options};
use onelog_record::{TableId, USER_TABLES_FROM};
use onelog_simulation::concurrent::{Load, Outcome, run, set_up, whole_log};
use onelog_simulation::workloads::{Bank, Bookings, Lists, Names, Ring, Stock, Workload, all};
use onelog_simulation::{Clock, Report, check, is_full};

const CLIENTS: usize = 4;
const TABLE: TableId = USER_TABLES_FROM;
const STREAM: TableId = TableId(USER_TABLES_FROM.0 + 1);

/// Small, so that segments roll and checkpoints happen all the time.
fn options(folder: &std::path::Path) -> Options {
    Options {
        segment_bytes: 32 << 10,
        memtable_bytes: 16 << 10,
        memtable_bytes_max: 4 << 20,
        checkpoint_interval_ms: 100,
        cache_bytes: 4 << 20,
        window_writes_max: 64,
        ..Options::new(folder)
    }
}

fn steps() -> usize {
    if is_full() { 6_000 } else { 300 }
}

/// Three lives of one node: stopped under load, stopped at rest, and one that is looked at.
fn prove(workloads: Vec<Box<dyn Workload>>, seed: u64) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let load = Load {
        clients: CLIENTS,
        steps: steps(),
        seed,
        stop_at: Some(CLIENTS * steps() / 2),
    };

    let node = Node::open(options(folder.path())).unwrap();
    let mut outcome = Outcome {
        history: set_up(&node, &workloads, &clock).unwrap(),
        ..Outcome::default()
    };
    outcome.add(run(&node, &workloads, &clock, &load));
    node.stop().unwrap();
    drop(node);

    let node = Node::open(options(folder.path())).unwrap();
    outcome.audit(&node, &workloads, &clock);
    outcome.send_again(&node, &clock, 16);
    let second = Load {
        seed: seed + 1_000,
        stop_at: None,
        ..load
    };
    outcome.add(run(&node, &workloads, &clock, &second));
    outcome.audit(&node, &workloads, &clock);
    assert_every_path_was_walked(&node, folder.path());
    node.stop().unwrap();
    drop(node);

    let node = Node::open(options(folder.path())).unwrap();
    outcome.audit(&node, &workloads, &clock);
    outcome.send_again(&node, &clock, 16);
    outcome.audit(&node, &workloads, &clock);
    let log = whole_log(&node).unwrap();
    outcome.check_tails(&log);
    assert!(outcome.tails.iter().all(|tail| !tail.is_empty()));
    node.stop().unwrap();

    let tables: Vec<_> = workloads
        .iter()
        .flat_map(|workload| workload.tables())
        .collect();
    let mut report = check(&outcome.history, &log, &tables);
    for violation in outcome.report.violations {
        report.add(violation.rule, violation.message);
    }
    report
}

/// The run would prove little if everything had stayed in one segment and one memtable.
#[track_caller]
fn assert_every_path_was_walked(node: &Node, folder: &std::path::Path) {
    let metrics = node.metrics_text();
    let checkpoints: u64 = metrics
        .lines()
        .find(|line| line.contains("checkpoints_total") && !line.starts_with('#'))
        .and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap();
    assert!(checkpoints > 1, "only {checkpoints} checkpoints");
    let segments = std::fs::read_dir(folder.join("log")).unwrap().count();
    assert!(segments > 4, "the log has only {segments} files");
}

#[track_caller]
fn assert_proved(report: &Report) {
    println!("{report}");
    assert!(report.is_clean(), "{report}");
    assert!(
        report.transactions > steps(),
        "hardly anything happened: {report}"
    );
    assert!(report.reads > steps(), "hardly anything was read: {report}");
}

#[test]
fn bank_transfers_neither_make_nor_lose_money() {
    let report = prove(vec![Box::new(Bank { table: TABLE })], 1);
    assert_proved(&report);
    assert!(
        report.refused > 0,
        "no transfer ever conflicted with another"
    );
}

#[test]
fn of_all_who_claim_a_name_one_gets_it() {
    assert_proved(&prove(vec![Box::new(Names { table: TABLE })], 2));
}

#[test]
fn a_ring_stays_one_ring() {
    assert_proved(&prove(vec![Box::new(Ring { table: TABLE })], 3));
}

#[test]
fn no_phantom_takes_the_last_place_of_a_room() {
    assert_proved(&prove(vec![Box::new(Bookings { table: TABLE })], 4));
}

#[test]
fn a_retried_append_happens_once() {
    assert_proved(&prove(vec![Box::new(Lists { table: TABLE })], 5));
}

#[test]
fn stock_never_goes_below_zero() {
    let stock = Stock {
        table: TABLE,
        orders: STREAM,
    };
    assert_proved(&prove(vec![Box::new(stock)], 6));
}

#[test]
fn everything_at_once_is_strictly_serializable() {
    assert_proved(&prove(all(), 7));
}

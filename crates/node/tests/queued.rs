//! Requests that wait because the state's disk hangs: they are counted, and all are answered.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use common::wait_until;
use common::watched::{Watch, WatchedDisk};
use onelog::{CommitRequest, NewTable, Node, Operation, Options, Refusal, Write};
use onelog_log::SimulatedDisk;

const WAITING: u64 = 20;

/// Flushes wait while it is shut.
#[derive(Debug, Default)]
struct Gate {
    is_shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn shut(&self) {
        *self.is_shut.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.is_shut.lock().unwrap() = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let is_shut = self.is_shut.lock().unwrap();
        drop(self.changed.wait_while(is_shut, |is_shut| *is_shut));
    }
}

impl Watch for Gate {
    fn before(&self, call: &'static str, _file: &str) {
        if call == "sync_data" {
            self.pass();
        }
    }
}

/// What the figures say of requests that wait.
fn queued(node: &Node) -> u64 {
    let text = node.metrics_text();
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("onelog_queued_requests "));
    line.unwrap().parse().unwrap()
}

#[test]
fn requests_that_wait_for_a_checkpoint_are_counted_and_answered() {
    // Given a node whose memtables hold little, on a disk whose flushes of the state hang,
    let gate = Arc::new(Gate::default());
    let state = WatchedDisk {
        inner: SimulatedDisk::new(2),
        watch: Arc::clone(&gate),
    };
    let options = Options {
        memtable_bytes: 64 << 10,
        memtable_bytes_max: 1 << 20,
        cache_bytes: 1 << 20,
        checkpoint_interval_ms: 1,
        ..Options::new("in memory")
    };
    let disk = Arc::new(SimulatedDisk::new(1));
    let node = Node::open_on(disk, Arc::new(state), options).unwrap();
    let table = node.create_table_blocking(NewTable::keyed("t")).unwrap();
    let table = table.0.id;
    assert_eq!(queued(&node), 0);
    gate.shut();
    // when more is written than the memtables hold,
    let mut tickets = Vec::new();
    wait_until("requests wait", || {
        let value = format!("\"{}\"", "x".repeat(4 << 10));
        let write = Write {
            table,
            key: Bytes::from(tickets.len().to_string()),
            operation: Operation::Put(Bytes::from(value)),
            headers: Vec::new(),
        };
        tickets.push(node.submit(CommitRequest {
            writes: vec![write],
            ..CommitRequest::default()
        }));
        queued(&node) >= WAITING
    });
    // then the requests that are not taken are counted,
    gate.open();
    // and each one is answered once the disk goes on.
    for ticket in tickets {
        let answer = ticket.wait();
        let is_refused = matches!(answer, Err(Refusal::Overloaded { .. }));
        assert!(answer.is_ok() || is_refused, "{answer:?}");
    }
    wait_until("none waits", || queued(&node) == 0);
    node.stop().unwrap();
}

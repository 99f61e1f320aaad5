//! Nodes that stop, on request or by themselves, while clients wait: each request is answered.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use onelog::{
    CommitRequest, Guard, NewTable, Node, Operation, Options, Position, Predicate, ReadLogError,
    Refusal, TableId, WaitError, Write,
};
use onelog_log::{Disk, DiskFile, Fault, SimulatedDisk};

const CLIENTS: usize = 3;
/// How many requests a client sends before it waits for their answers.
const BURST: usize = 4;
/// Nothing takes as long on a node that answers at all.
const FOR_EVER: Duration = Duration::from_secs(60);

fn rounds() -> usize {
    let is_full = std::env::var_os("ONELOG_TEST_FULL").is_some_and(|value| value == "1");
    if is_full { 20_000 } else { 2_000 }
}

fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        memtable_bytes: 64 << 10,
        memtable_bytes_max: 1 << 20,
        cache_bytes: 1 << 20,
        ..Options::new("in memory")
    }
}

fn put(table: TableId, key: &str) -> CommitRequest {
    CommitRequest {
        writes: vec![Write {
            table,
            key: Bytes::copy_from_slice(key.as_bytes()),
            operation: Operation::Put(Bytes::from_static(b"1")),
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    }
}

fn make_table(node: &Node) -> TableId {
    let made = node.create_table_blocking(NewTable::keyed("t"));
    made.unwrap().0.id
}

/// Sends requests and waits for their answers until one says that the node has stopped.
fn work(node: &Node, table: TableId, sent: &AtomicUsize) {
    loop {
        let tickets: Vec<_> = (0..BURST)
            .map(|_| {
                sent.fetch_add(1, Ordering::SeqCst);
                node.submit(put(table, "k"))
            })
            .collect();
        let answers = tickets.into_iter().map(onelog::Ticket::wait);
        let stopped = answers.filter(|answer| matches!(answer, Err(Refusal::Stopped(_))));
        if stopped.count() > 0 {
            return;
        }
    }
}

/// Clients under way, and what each sends when it has ended.
fn clients(node: &Node, sent: &Arc<AtomicUsize>) -> Receiver<()> {
    let table = make_table(node);
    let (done, all_done) = channel();
    for _ in 0..CLIENTS {
        let (node, sent, done) = (node.clone(), Arc::clone(sent), done.clone());
        thread::spawn(move || {
            work(&node, table, &sent);
            let _ = done.send(());
        });
    }
    all_done
}

#[test]
fn each_request_is_answered_whatever_the_moment_of_the_stop() {
    for round in 0..rounds() {
        // Given clients that send without pause,
        let disk = SimulatedDisk::new(round as u64);
        let state = Arc::new(SimulatedDisk::new(1));
        let node = Node::open_on(Arc::new(disk.clone()), state, options()).unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        let all_done = clients(&node, &sent);
        // when the node is stopped, or its disk fails, at some moment,
        while sent.load(Ordering::SeqCst) < round % 61 {
            thread::yield_now();
        }
        if round % 3 == 0 {
            // The steps run on meanwhile: a fault that is planned too late is planned again.
            while node.failure().is_none() {
                disk.fail_at(disk.steps() + (round % 7) as u64, Fault::Error);
                thread::yield_now();
            }
        } else {
            node.stop().unwrap();
        }
        // then each of them hears that it has stopped.
        for _ in 0..CLIENTS {
            let done = all_done.recv_timeout(FOR_EVER);
            assert!(done.is_ok(), "a client of round {round} waits for ever");
        }
    }
}

#[test]
fn reading_behind_the_end_of_a_stopped_node_and_waiting_for_more_say_so() {
    let disks = [1, 2].map(|seed| Arc::new(SimulatedDisk::new(seed)));
    let [log, state] = disks;
    let node = Node::open_on(log, state, options()).unwrap();
    let table = make_table(&node);
    let end = node.submit(put(table, "k")).wait().unwrap().position;
    node.stop().unwrap();
    // What was reached can still be read and waited for,
    let batch = node.read_log(Position::ZERO, 1 << 20).unwrap();
    assert_eq!(batch.next, end);
    assert_eq!(node.wait_for_blocking(end, FOR_EVER), Ok(()));
    // and nothing will come behind it.
    let behind = node.read_log(end, 1 << 20);
    assert!(
        matches!(behind, Err(ReadLogError::Stopped { .. })),
        "{behind:?}"
    );
    let more = Position(end.get() + 1);
    let waited = node.wait_for_blocking(more, FOR_EVER);
    assert_eq!(waited, Err(WaitError::Stopped));
}

/// Panics in each call that is made on the thread that is named.
#[derive(Clone, Debug)]
struct PanickingDisk {
    inner: SimulatedDisk,
    thread: Arc<Mutex<Option<&'static str>>>,
}

#[derive(Debug)]
struct PanickingFile {
    inner: Arc<dyn DiskFile>,
    disk: PanickingDisk,
}

impl PanickingDisk {
    fn new() -> Self {
        Self {
            inner: SimulatedDisk::new(1),
            thread: Arc::default(),
        }
    }

    fn call<R>(&self, call: impl FnOnce(&SimulatedDisk) -> R) -> R {
        let wanted = *self.thread.lock().unwrap();
        let here = thread::current();
        let is_here = |wanted| here.name().is_some_and(|name| name.starts_with(wanted));
        assert!(!wanted.is_some_and(is_here), "planted");
        call(&self.inner)
    }

    fn file(&self, inner: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        let disk = self.clone();
        Ok(Arc::new(PanickingFile {
            inner: inner?,
            disk,
        }))
    }
}

impl Disk for PanickingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.call(|disk| disk.list())
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.file(self.call(|disk| disk.open(name)))
    }
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.file(self.call(|disk| disk.create(name, len)))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(|disk| disk.rename(from, to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.call(|disk| disk.remove(name))
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.call(Disk::sync_folder)
    }
}

impl DiskFile for PanickingFile {
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        self.disk.call(|_| self.inner.read_at(at, out))
    }
    fn write_all_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.call(|_| self.inner.write_all_at(at, bytes))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.call(|_| self.inner.sync_data())
    }
    fn len(&self) -> io::Result<u64> {
        self.disk.call(|_| self.inner.len())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.call(|_| self.inner.set_len(len))
    }
}

/// Runs something that may wait for ever, which is a failure.
fn ends<R: Send + 'static>(what: &str, run: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, result) = channel();
    thread::spawn(move || drop(done.send(run())));
    let result = result.recv_timeout(FOR_EVER);
    result.unwrap_or_else(|_| panic!("{what} does not end"))
}

#[test]
fn a_thread_that_panics_stops_the_node_and_everyone_hears_of_it() {
    for name in [
        "onelog-engine",
        "flush-",
        "onelog-checkpoint",
        "onelog-prepare",
    ] {
        // Given a node with checkpoints and new segments all the time,
        let disk = PanickingDisk::new();
        let state = PanickingDisk {
            inner: SimulatedDisk::new(2),
            ..disk.clone()
        };
        let options = Options {
            checkpoint_interval_ms: 1,
            cache_bytes: 0,
            ..options()
        };
        let node = Node::open_on(Arc::new(disk.clone()), Arc::new(state), options).unwrap();
        let table = make_table(&node);
        node.submit(put(table, "old")).wait().unwrap();
        // when one of its threads panics under load,
        let is_over = Arc::new(AtomicBool::new(false));
        let (worker, over) = (node.clone(), Arc::clone(&is_over));
        let work = thread::spawn(move || {
            let mut request = put(table, "k");
            request.writes[0].operation = Operation::Put(vec![b'1'; 4 << 10].into());
            // All that the engine's thread asks of a disk: a row that is not in memory.
            request.guards.push(Guard {
                table,
                key: Bytes::from_static(b"old"),
                predicate: Predicate::Exists,
            });
            while !over.load(Ordering::SeqCst) {
                match worker.submit(request.clone()).wait() {
                    Err(Refusal::Stopped(why)) => return why,
                    answer => drop(answer),
                }
            }
            "not yet".to_owned()
        });
        *disk.thread.lock().unwrap() = Some(name);
        // then the client is answered, those who wait and `status` say so, and stopping it ends.
        let why = ends("a client", move || work.join().unwrap());
        is_over.store(true, Ordering::SeqCst);
        let waiter = node.clone();
        let end = Position(u64::MAX);
        let waited = ends("waiting", move || waiter.wait_for_blocking(end, FOR_EVER));
        assert_eq!(waited, Err(WaitError::Stopped), "{name}");
        let failure = node.status().failure.expect("the failure is shown");
        assert!(
            failure.contains(name) && failure.contains("planted"),
            "{failure}"
        );
        assert!(!why.is_empty());
        let stopper = node.clone();
        assert!(ends("stopping", move || stopper.stop()).is_err(), "{name}");
        // The B-tree cannot be closed after a panic inside it; the process would end here.
        std::mem::forget(node);
    }
}

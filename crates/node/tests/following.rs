//! Read replicas in one process with their sources. `crates/cli/tests/nodes/following.rs` has those of
//! several processes, by HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use onelog::{
    FeedError, FollowState, FollowStatus, Index, LogFeed, NewTable, Node, OpenError, Options,
    PinnedState, Position, Source, SourceError, StartError,
};
use serde_json::{Value, json};

const TABLE: &str = "shop.orders";
/// A test that hangs must fail; nothing is measured with this.
const PATIENCE: Duration = Duration::from_secs(120);

/// A source without a network. It is away while it has no node.
#[derive(Debug, Default)]
struct Nearby {
    node: Mutex<Option<Node>>,
    pinned: Mutex<Option<PinnedState>>,
}

impl Nearby {
    fn of(node: &Node) -> Arc<Self> {
        let nearby = Self::default();
        nearby.is(Some(node));
        Arc::new(nearby)
    }

    fn is(&self, node: Option<&Node>) {
        *self.node.lock().unwrap() = node.cloned();
    }

    fn node(&self) -> Result<Node, SourceError> {
        let node = self.node.lock().unwrap().clone();
        node.ok_or_else(|| SourceError::Away("it is away".to_owned()))
    }
}

/// The log as it would come from a connection, in small pieces.
struct Stream {
    feed: LogFeed,
    left: Vec<u8>,
    runtime: tokio::runtime::Runtime,
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left.is_empty() {
            self.left = self.feed.read(64 << 10).map_err(io::Error::other)?;
        }
        if self.left.is_empty() {
            let pause = Duration::from_millis(20);
            match self.runtime.block_on(self.feed.wait(pause)) {
                Ok(()) | Err(onelog::WaitError::TimedOut { .. }) => {}
                Err(stopped) => return Err(io::Error::other(stopped)),
            }
            self.left.extend_from_slice(&self.feed.pulse());
        }
        let count = self.left.len().min(into.len()).min(1_000);
        into[..count].copy_from_slice(&self.left[..count]);
        self.left.drain(..count);
        Ok(count)
    }
}

impl Source for Nearby {
    fn address(&self) -> &str {
        "nearby"
    }

    fn log_id(&self) -> Result<u128, SourceError> {
        Ok(self.node()?.log_id())
    }

    fn log(
        &self,
        log_id: u128,
        behind: Index,
        checksum: u32,
    ) -> Result<Box<dyn Read + Send>, SourceError> {
        let feed = self.node()?.feed(log_id, behind, checksum);
        let feed = feed.map_err(|error| {
            let text = error.to_string();
            match error {
                FeedError::OtherLog { .. } => SourceError::OtherLog(text),
                FeedError::OtherHistory { .. } => SourceError::OtherHistory(text),
                FeedError::Behind { .. } => SourceError::Behind(text),
                FeedError::Cut { .. } => SourceError::Cut(text),
                FeedError::Read(_) => SourceError::Away(text),
            }
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        Ok(Box::new(Stream {
            left: feed.start().to_vec(),
            feed,
            runtime: runtime.unwrap(),
        }))
    }

    fn state(&self) -> Result<Bytes, SourceError> {
        let pinned = self.node()?.pin_state().unwrap().unwrap();
        let head = pinned.head();
        *self.pinned.lock().unwrap() = Some(pinned);
        Ok(head)
    }

    fn chunk(&self, index: Index, cursor: &[u8]) -> Result<Bytes, SourceError> {
        let pinned = self.pinned.lock().unwrap();
        let pinned = pinned.as_ref().filter(|pinned| pinned.index() == index);
        let pinned = pinned.ok_or_else(|| SourceError::StateGone("gone".to_owned()))?;
        Ok(pinned.chunk(cursor).unwrap().into())
    }

    fn position(&self, _within: Duration) -> Result<Position, SourceError> {
        Ok(self.node()?.position())
    }
}

fn small(folder: &Path) -> Options {
    Options {
        segment_bytes: 64 << 10,
        checkpoint_interval_ms: 50,
        ..Options::new(folder)
    }
}

fn source(folder: &Path) -> Node {
    let node = Node::open(small(folder)).unwrap();
    node.create_table_blocking(NewTable::keyed(TABLE)).unwrap();
    node
}

fn follower(folder: &Path, source: &Arc<Nearby>) -> Result<Node, OpenError> {
    Node::open(Options {
        follow: Some(Arc::clone(source) as Arc<dyn Source>),
        ..small(folder)
    })
}

fn put(node: &Node, key: &str, value: &Value) -> Position {
    let done = node.transact(|tx| tx.put_json(TABLE, key, value));
    done.unwrap().position
}

#[track_caller]
fn value(node: &Node, key: &str, after: Position) -> Option<Value> {
    if let Err(error) = node.wait_for_blocking(after, PATIENCE) {
        panic!("{error}: {:?}", node.following());
    }
    node.begin().get_json(TABLE, key).unwrap()
}

#[track_caller]
fn wait_for(node: &Node, state: FollowState) -> FollowStatus {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let status = node.following().unwrap();
        if status.state == state {
            return status;
        }
        assert!(std::time::Instant::now() < deadline, "{status:?}");
        std::thread::yield_now();
    }
}

/// The two have the same log up to there, byte for byte.
#[track_caller]
fn check_same(one: &Node, other: &Node, at: Position) {
    let chain = one.chain_at(at).unwrap();
    assert!(chain.is_some());
    assert_eq!(chain, other.chain_at(at).unwrap());
}

#[test]
fn a_read_replica_has_the_log_of_its_source_through_restarts_of_both() {
    // Given a source, and a node that follows it,
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    let mut origin = source(&there);
    let nearby = Nearby::of(&origin);
    let mut replica = follower(&here, &nearby).unwrap();
    for n in 0..200 {
        put(&origin, &format!("k{n}"), &json!("v".repeat(n * 20)));
    }
    let end = put(&origin, "a", &json!(1));
    // then it has all of that;
    assert_eq!(value(&replica, "a", end), Some(json!(1)));
    check_same(&origin, &replica, end);
    assert_eq!(wait_for(&replica, FollowState::Following).restarts, 0);
    // also what came while it was stopped;
    replica.stop().unwrap();
    drop(replica);
    let end = put(&origin, "b", &json!(2));
    replica = follower(&here, &nearby).unwrap();
    assert_eq!(value(&replica, "b", end), Some(json!(2)));
    // it answers reads while its source is away, and when it starts without it,
    nearby.is(None);
    origin.stop().unwrap();
    drop(origin);
    wait_for(&replica, FollowState::SourceAway);
    replica.stop().unwrap();
    drop(replica);
    replica = follower(&here, &nearby).unwrap();
    assert_eq!(value(&replica, "b", end), Some(json!(2)));
    // and goes on by itself when that is back.
    origin = Node::open(small(&there)).unwrap();
    nearby.is(Some(&origin));
    let end = put(&origin, "c", &json!(3));
    assert_eq!(value(&replica, "c", end), Some(json!(3)));
    check_same(&origin, &replica, end);
    // It writes nothing itself.
    let written = replica.transact(|tx| tx.put_json(TABLE, "x", &json!(0)));
    assert!(written.is_err());
    // Another one follows it.
    let farther = Nearby::of(&replica);
    let second = follower(&folder.path().join("second"), &farther).unwrap();
    assert_eq!(value(&second, "c", end), Some(json!(3)));
    check_same(&origin, &second, end);
}

#[test]
fn read_replicas_that_follow_each_other_do_not_count_as_following() {
    // Given a read replica, and another one that follows it,
    let folder = tempfile::tempdir().unwrap();
    let origin = source(&folder.path().join("origin"));
    let (of_first, of_second) = (Nearby::of(&origin), Arc::new(Nearby::default()));
    let first = follower(&folder.path().join("first"), &of_first).unwrap();
    of_second.is(Some(&first));
    let second = follower(&folder.path().join("second"), &of_second).unwrap();
    wait_for(&second, FollowState::Following);
    // when the first one's source is the second one from now on,
    of_first.is(Some(&second));
    origin.stop().unwrap();
    // then both say that none of them hears of the server that writes, and go on once one does.
    let status = wait_for(&second, FollowState::SourceAway);
    assert!(status.heard_ms.is_some_and(|age| age > 0), "{status:?}");
    wait_for(&first, FollowState::SourceAway);
    drop(origin);
    let origin = Node::open(small(&folder.path().join("origin"))).unwrap();
    of_first.is(Some(&origin));
    second.stop().unwrap();
    drop(second);
    let end = put(&origin, "a", &json!(1));
    assert_eq!(value(&first, "a", end), Some(json!(1)));
    wait_for(&first, FollowState::Following);
}

#[test]
fn a_read_replica_takes_the_state_where_the_log_was_cut() {
    // Given a source that keeps little of its log, and a node that followed it,
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    let origin = Node::open(Options {
        retain_bytes: Some(64 << 10),
        ..small(&there)
    });
    let origin = origin.unwrap();
    let table = NewTable::keyed(TABLE);
    origin.create_table_blocking(table).unwrap();
    let nearby = Nearby::of(&origin);
    let replica = follower(&here, &nearby).unwrap();
    let first = put(&origin, "old", &json!(1));
    assert_eq!(value(&replica, "old", first), Some(json!(1)));
    replica.stop().unwrap();
    drop(replica);
    // when what it lacks is cut,
    for n in 0.. {
        put(&origin, &format!("k{}", n % 7), &json!("v".repeat(2_000)));
        if origin.log_start() > Position(first.get() + 1) {
            break;
        }
        assert!(n < 100_000, "the log is never cut");
    }
    let end = put(&origin, "last", &json!(2));
    // then it takes the state, and what comes behind; so does one that begins now.
    let mut replica = follower(&here, &nearby).unwrap();
    assert_eq!(value(&replica, "last", end), Some(json!(2)));
    assert_eq!(value(&replica, "old", end), Some(json!(1)));
    assert_eq!(wait_for(&replica, FollowState::Following).restarts, 1);
    assert!(replica.log_start() > first);
    let new = follower(&folder.path().join("new"), &nearby).unwrap();
    assert_eq!(value(&new, "old", end), Some(json!(1)));
    // It goes on from there, also after a restart.
    let end = put(&origin, "more", &json!(3));
    assert_eq!(value(&replica, "more", end), Some(json!(3)));
    replica.stop().unwrap();
    drop(replica);
    replica = follower(&here, &nearby).unwrap();
    let end = put(&origin, "most", &json!(4));
    assert_eq!(value(&replica, "most", end), Some(json!(4)));
    assert_eq!(value(&replica, "old", end), Some(json!(1)));
    check_same(&origin, &replica, end);
    check_same(&origin, &new, {
        value(&new, "most", end);
        end
    });
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}

#[test]
fn another_log_or_another_history_is_never_followed() {
    // Given a node that followed another one, of which there is a copy that went another way,
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let origin = source(&path("origin"));
    origin.stop().unwrap();
    drop(origin);
    copy_folder(&path("origin"), &path("copy"));
    let origin = Node::open(small(&path("origin"))).unwrap();
    let copy = Node::open(small(&path("copy"))).unwrap();
    let nearby = Nearby::of(&origin);
    let end = put(&origin, "a", &json!(1));
    for n in 0..5 {
        put(&copy, "a", &json!(n));
    }
    let replica = follower(&path("replica"), &nearby).unwrap();
    assert_eq!(value(&replica, "a", end), Some(json!(1)));
    replica.stop().unwrap();
    drop(replica);
    // when it is to follow that, or another log, then it does not;
    let stranger = source(&path("stranger"));
    for (other, state) in [
        (&copy, FollowState::OtherHistory),
        (&stranger, FollowState::OtherLog),
    ] {
        nearby.is(Some(other));
        let replica = follower(&path("replica"), &nearby).unwrap();
        let status = wait_for(&replica, state);
        // and says what it has and what its source has;
        let why = status.why.unwrap();
        assert!(why.contains("the source") && !why.contains("here"), "{why}");
        assert_eq!(value(&replica, "a", end), Some(json!(1)));
        replica.stop().unwrap();
    }
    // and it goes on with its own.
    nearby.is(Some(&origin));
    let replica = follower(&path("replica"), &nearby).unwrap();
    let end = put(&origin, "a", &json!(9));
    assert_eq!(value(&replica, "a", end), Some(json!(9)));
    // Its folder is no node's, and the reverse.
    replica.stop().unwrap();
    drop(replica);
    let opened = Node::open(small(&path("replica")));
    assert!(
        matches!(opened, Err(OpenError::Start(StartError::IsReadReplica))),
        "{opened:?}"
    );
    stranger.stop().unwrap();
    drop(stranger);
    let opened = follower(&path("stranger"), &nearby);
    assert!(
        matches!(
            opened,
            Err(OpenError::Start(StartError::NoReadReplica { found: 1 }))
        ),
        "{opened:?}"
    );
}

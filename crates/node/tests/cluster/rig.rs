//! Nodes of one cluster in this process: real folders, real connections on loopback.

use std::collections::BTreeMap;
use std::time::Duration;

use onelog::{
    ClusterOptions, ClusterStatus, CommitRequest, Committed, NewTable, Node, NodeId, OpenError,
    Operation, Options, Position, Refusal, TableId, Timing, TxnId, Write,
};
use onelog_testkit::Port;
use tempfile::TempDir;

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const TABLE: &str = "t";

/// One place for a node: its folder and its port, for as long as the test.
pub struct Place {
    pub folder: TempDir,
    port: Port,
    node: Option<Node>,
}

pub struct Cluster {
    places: BTreeMap<u64, Place>,
    pub options: fn(Options) -> Options,
}

/// Small bounds, so that little data has all effects.
pub fn small(options: Options) -> Options {
    Options {
        segment_bytes: 64 << 10,
        memtable_bytes: 64 << 10,
        memtable_bytes_max: 4 << 20,
        cache_bytes: 1 << 20,
        ..options
    }
}

pub fn timing() -> Timing {
    Timing {
        pause_shortest: Duration::from_millis(5),
        pause_longest: Duration::from_millis(100),
        tick: Duration::from_millis(20),
        ..Timing::default()
    }
}

impl Place {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            port: Port::take(),
            node: None,
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }
}

impl Cluster {
    pub fn empty() -> Self {
        Self {
            places: BTreeMap::new(),
            options: small,
        }
    }

    /// Node 1 of a log with a table.
    pub fn of_one() -> Self {
        let mut cluster = Self::empty();
        cluster.place(1);
        cluster.start(1, &[]).unwrap();
        let made = cluster.get(1).create_table_blocking(NewTable::keyed(TABLE));
        made.unwrap();
        cluster
    }

    /// So many voters, grown from one.
    pub fn of(count: u64) -> Self {
        let mut cluster = Self::of_one();
        for id in 2..=count {
            cluster.join(id);
        }
        cluster
    }

    pub fn place(&mut self, id: u64) -> &Place {
        self.places.entry(id).or_insert_with(Place::new)
    }

    /// A node whose folder is there.
    pub fn place_in(&mut self, id: u64, folder: TempDir) {
        let place = Place {
            folder,
            ..Place::new()
        };
        self.places.insert(id, place);
    }

    pub fn address(&self, id: u64) -> String {
        self.places[&id].address()
    }

    pub fn node_options(&self, id: u64, peers: &[u64]) -> Options {
        let place = &self.places[&id];
        let listen = place.address().parse().unwrap();
        let peers = peers
            .iter()
            .map(|peer| (NodeId(*peer), self.address(*peer)));
        let cluster = ClusterOptions {
            peers: peers.collect(),
            start_timeout: PATIENCE,
            timing: timing(),
            ..ClusterOptions::new(NodeId(id), listen)
        };
        Options {
            cluster: Some(cluster),
            ..(self.options)(Options::new(place.folder.path()))
        }
    }

    pub fn start(&mut self, id: u64, peers: &[u64]) -> Result<(), OpenError> {
        let options = self.node_options(id, peers);
        self.start_with(id, options)
    }

    pub fn start_with(&mut self, id: u64, options: Options) -> Result<(), OpenError> {
        let node = Node::open(options)?;
        self.adopt(id, node);
        Ok(())
    }

    /// A node that was started elsewhere.
    pub fn adopt(&mut self, id: u64, node: Node) {
        self.places.get_mut(&id).unwrap().node = Some(node);
    }

    pub fn take(&mut self, id: u64) -> Node {
        self.places.get_mut(&id).unwrap().node.take().unwrap()
    }

    /// A new node joins and becomes a voter.
    pub fn join(&mut self, id: u64) {
        self.learn(id);
        let via = self.any();
        self.get(via).promote_member_blocking(NodeId(id)).unwrap();
        self.wait(id, |status| {
            status.members.iter().any(|m| m.node == id && m.is_voter)
        });
    }

    /// A new node joins and follows.
    pub fn learn(&mut self, id: u64) {
        let via = self.any();
        self.place(id);
        self.start(id, &[via]).unwrap();
        let address = self.address(id);
        let added = self.get(via).add_member_blocking(NodeId(id), address);
        added.unwrap();
    }

    /// The lowest number that runs.
    pub fn any(&self) -> u64 {
        *self.running().first().unwrap()
    }

    pub fn running(&self) -> Vec<u64> {
        let running = self.places.iter().filter(|(_, place)| place.node.is_some());
        running.map(|(id, _)| *id).collect()
    }

    pub fn get(&self, id: u64) -> &Node {
        self.places[&id].node.as_ref().unwrap()
    }

    pub fn stop(&mut self, id: u64) {
        self.take(id).stop().unwrap();
    }

    pub fn status(&self, id: u64) -> ClusterStatus {
        self.get(id).cluster().unwrap()
    }

    #[track_caller]
    pub fn wait(&self, id: u64, condition: impl Fn(&ClusterStatus) -> bool) -> ClusterStatus {
        let waited = self.get(id).wait_for_cluster(PATIENCE, condition);
        waited.unwrap_or_else(|error| panic!("node {id}: {error}: {:?}", self.status(id)))
    }

    /// Waits until a node leads which all that run follow.
    #[track_caller]
    pub fn leader(&self) -> u64 {
        loop {
            let running = self.running();
            let leads = |status: &ClusterStatus| {
                status
                    .leader
                    .is_some_and(|leader| running.contains(&leader))
            };
            let status = self.wait(running[0], leads);
            let leader = status.leader.unwrap();
            self.wait(leader, |status| {
                status.leads || status.leader != Some(leader)
            });
            let follow = running
                .iter()
                .all(|id| self.status(*id).leader == Some(leader));
            if follow && self.status(leader).leads {
                return leader;
            }
        }
    }

    pub fn table(&self, id: u64) -> TableId {
        let catalog = self.get(id).catalog();
        catalog.by_name(TABLE).unwrap().id
    }

    pub fn put(&self, id: u64, key: &str, value: &str) -> Result<Committed, Refusal> {
        self.get(id)
            .submit(request(self.table(id), key, value))
            .wait()
    }

    pub fn value(&self, id: u64, key: &str) -> Option<String> {
        let value = self.get(id).begin().get(TABLE, key).unwrap();
        value.map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    /// All that run have everything, and the same: every entry by the log's chain, every row by the
    /// state's digest. The ids in the log, in order.
    #[track_caller]
    pub fn check_equal(&self) -> Vec<TxnId> {
        let end = self.check_equal_states();
        self.ids(self.any(), end)
    }

    /// The same where the logs begin at different places. The position of all.
    #[track_caller]
    pub fn check_equal_states(&self) -> Position {
        let end = self.get(self.leader()).read_barrier_blocking().unwrap();
        let mut chains = Vec::new();
        let mut states = Vec::new();
        for id in self.running() {
            let node = self.get(id);
            node.wait_for_blocking(end, PATIENCE).unwrap();
            assert_eq!(node.position(), end, "nothing else is written now");
            // A log that has just begun behind a snapshot has none.
            chains.extend(node.chain_at(end).unwrap());
            let snapshot = node.snapshot();
            let all = |table| onelog::KeyRange {
                table,
                from: Default::default(),
                to: None,
            };
            let system = onelog::record::SYSTEM_TABLES.iter().map(|(id, _)| *id);
            let catalog = node.catalog();
            let tables = system.chain(catalog.tables().map(|table| table.id));
            let rows: Vec<_> = tables
                .flat_map(|table| {
                    let rows = snapshot.scan(&all(table), false).unwrap();
                    rows.map(move |row| (table, row.unwrap()))
                        .collect::<Vec<_>>()
                })
                .collect();
            states.push(rows);
        }
        assert!(chains.iter().all(|chain| *chain == chains[0]), "{chains:?}");
        assert!(
            states.iter().all(|state| *state == states[0]),
            "states differ"
        );
        end
    }

    fn ids(&self, id: u64, end: Position) -> Vec<TxnId> {
        let node = self.get(id);
        let mut at = node.log_start();
        let mut ids = Vec::new();
        while at < end {
            let batch = node.read_log(at, 1 << 20).unwrap();
            ids.extend(batch.transactions.iter().map(|transaction| transaction.id));
            at = batch.next;
        }
        ids
    }
}

pub fn request(table: TableId, key: &str, value: &str) -> CommitRequest {
    CommitRequest {
        writes: vec![Write {
            table,
            key: key.to_owned().into(),
            operation: Operation::Put(value.to_owned().into()),
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    }
}

//! What the node counts and measures, as Prometheus text.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::cluster::ClusterStatus;

/// How many tables the conflict counter distinguishes; conflicts in others count as `other`.
const CONFLICT_TABLES_MAX: usize = 256;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct TableLabel {
    table: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    reason: &'static str,
}

/// The node's own figures; sinks add theirs to the registry.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) registry: Mutex<Registry>,
    pub(crate) commits: Counter,
    pub(crate) records: Counter,
    pub(crate) log_bytes: Counter,
    pub(crate) decision_steps: Counter,
    conflicts: Family<TableLabel, Counter>,
    conflict_tables: Mutex<std::collections::HashSet<String>>,
    refusals: Family<ReasonLabel, Counter>,
    pub(crate) flush_seconds: Histogram,
    pub(crate) group_transactions: Histogram,
    pub(crate) group_bytes: Histogram,
    pub(crate) checkpoint_seconds: Histogram,
    pub(crate) checkpoints: Counter,
    pub(crate) memtable_bytes: Gauge,
    pub(crate) position: Gauge<i64>,
    pub(crate) log_start: Gauge<i64>,
    pub(crate) log_ahead_ms: Gauge,
    pub(crate) queue: Gauge,
    pub(crate) disk_free_bytes: Gauge,
    pub(crate) disk_needed_bytes: Gauge,
    pub(crate) read_only: Gauge,
    cluster: Option<ClusterFigures>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NodeLabel {
    node: u64,
}

/// What a node of a cluster shows beside.
#[derive(Debug, Default)]
struct ClusterFigures {
    term: Gauge,
    leader: Gauge,
    leads: Gauge,
    voters: Gauge,
    learners: Gauge,
    mended_frames: Counter,
    peer_matched: Family<NodeLabel, Gauge>,
    peer_active: Family<NodeLabel, Gauge>,
    peer_takes_snapshot: Family<NodeLabel, Gauge>,
    peer_connected: Family<NodeLabel, Gauge>,
    peer_doubled: Family<NodeLabel, Gauge>,
}

impl ClusterFigures {
    fn register(&self, registry: &mut Registry) {
        let gauges = [
            ("term", "Highest term of the cluster", &self.term),
            (
                "leader",
                "Number of the node that leads, 0 where none is known",
                &self.leader,
            ),
            (
                "leads",
                "1 while this node leads and decides requests",
                &self.leads,
            ),
            ("voters", "Members that vote", &self.voters),
            ("learners", "Members that only follow", &self.learners),
        ];
        for (name, help, gauge) in gauges {
            registry.register(format!("cluster_{name}"), help, gauge.clone());
        }
        registry.register(
            "cluster_mended_frames",
            "Damaged frames of the log that were put back from other nodes",
            self.mended_frames.clone(),
        );
        let members = [
            (
                "matched",
                "On the leader: up to which entry a member has the log on its disk",
                &self.peer_matched,
            ),
            (
                "active",
                "On the leader: 1 while the member was heard of within an election timeout",
                &self.peer_active,
            ),
            (
                "takes_snapshot",
                "On the leader: 1 while the member is being sent a snapshot",
                &self.peer_takes_snapshot,
            ),
            (
                "connected",
                "1 while this node is connected to the member",
                &self.peer_connected,
            ),
            (
                "doubled",
                "1 while this node refuses another process that has the member's number",
                &self.peer_doubled,
            ),
        ];
        for (name, help, family) in members {
            registry.register(format!("cluster_peer_{name}"), help, family.clone());
        }
    }

    fn show(&self, status: &ClusterStatus) {
        self.term.set(status.term as i64);
        self.leader.set(status.leader.unwrap_or(0) as i64);
        self.leads.set(status.leads.into());
        let voters = status.members.iter().filter(|member| member.is_voter);
        let voters = voters.count();
        self.voters.set(voters as i64);
        self.learners.set((status.members.len() - voters) as i64);
        let mended = status
            .mended_frames
            .saturating_sub(self.mended_frames.get());
        self.mended_frames.inc_by(mended);
        self.show_members(status);
    }

    fn show_members(&self, status: &ClusterStatus) {
        let families = [
            &self.peer_matched,
            &self.peer_active,
            &self.peer_takes_snapshot,
            &self.peer_connected,
            &self.peer_doubled,
        ];
        for family in families {
            family.clear();
        }
        for member in &status.members {
            let label = NodeLabel { node: member.node };
            let show = |family: &Family<NodeLabel, Gauge>, value: Option<i64>| {
                if let Some(value) = value {
                    family.get_or_create(&label).set(value);
                }
            };
            let of_other = |shown: bool| (member.node != status.node).then(|| shown.into());
            show(&self.peer_matched, member.matched.map(|index| index as i64));
            show(&self.peer_active, member.is_active.map(i64::from));
            show(
                &self.peer_takes_snapshot,
                member.takes_snapshot.map(i64::from),
            );
            show(&self.peer_connected, of_other(member.is_connected));
            show(&self.peer_doubled, of_other(member.other_address.is_some()));
        }
    }
}

fn doubling(first: f64, count: u16) -> impl Iterator<Item = f64> {
    (0..count).map(move |n| first * f64::from(1u32 << n))
}

impl Metrics {
    pub(crate) fn new(is_in_cluster: bool) -> Self {
        let seconds = || Histogram::new(doubling(0.000_05, 18));
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("onelog")),
            commits: Counter::default(),
            records: Counter::default(),
            log_bytes: Counter::default(),
            decision_steps: Counter::default(),
            conflicts: Family::default(),
            conflict_tables: Mutex::default(),
            refusals: Family::default(),
            flush_seconds: seconds(),
            group_transactions: Histogram::new(doubling(1.0, 14)),
            group_bytes: Histogram::new(doubling(128.0, 18)),
            checkpoint_seconds: Histogram::new(doubling(0.005, 14)),
            checkpoints: Counter::<u64, AtomicU64>::default(),
            memtable_bytes: Gauge::default(),
            position: Gauge::default(),
            log_start: Gauge::default(),
            log_ahead_ms: Gauge::default(),
            queue: Gauge::default(),
            disk_free_bytes: Gauge::default(),
            disk_needed_bytes: Gauge::default(),
            read_only: Gauge::default(),
            cluster: is_in_cluster.then(ClusterFigures::default),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock();
        registry.register("commits", "Transactions committed", self.commits.clone());
        registry.register("records", "Records committed", self.records.clone());
        registry.register(
            "log_bytes",
            "Bytes of entries appended to the log",
            self.log_bytes.clone(),
        );
        registry.register(
            "decision_steps",
            "Steps that deciding transactions took: what was looked at in the state",
            self.decision_steps.clone(),
        );
        registry.register(
            "conflicts",
            "Transactions refused for a conflict, by table",
            self.conflicts.clone(),
        );
        registry.register(
            "refusals",
            "Transactions refused, by reason",
            self.refusals.clone(),
        );
        registry.register(
            "flush_seconds",
            "Time from staging a group to its flush",
            self.flush_seconds.clone(),
        );
        registry.register(
            "group_transactions",
            "Transactions in a group",
            self.group_transactions.clone(),
        );
        registry.register("group_bytes", "Bytes in a group", self.group_bytes.clone());
        registry.register(
            "checkpoint_seconds",
            "Time that a checkpoint took",
            self.checkpoint_seconds.clone(),
        );
        registry.register("checkpoints", "Checkpoints made", self.checkpoints.clone());
        registry.register(
            "memtable_bytes",
            "Bytes in memtables",
            self.memtable_bytes.clone(),
        );
        registry.register("position", "Applied position", self.position.clone());
        registry.register(
            "log_start",
            "Oldest position in the log",
            self.log_start.clone(),
        );
        registry.register(
            "queued_requests",
            "Requests that wait to be decided",
            self.queue.clone(),
        );
        if let Some(cluster) = &self.cluster {
            cluster.register(&mut registry);
        }
        drop(registry);
        self.register_surroundings();
    }

    /// What depends on the machine: its disk and its clock.
    fn register_surroundings(&self) {
        let mut registry = self.registry.lock();
        registry.register(
            "log_ahead_ms",
            "Milliseconds by which the log's last timestamp is ahead of this node's clock",
            self.log_ahead_ms.clone(),
        );
        registry.register(
            "disk_free_bytes",
            "Bytes that can still be written to the disk",
            self.disk_free_bytes.clone(),
        );
        registry.register(
            "disk_needed_bytes",
            "With fewer free bytes on the disk nothing is written",
            self.disk_needed_bytes.clone(),
        );
        registry.register(
            "read_only",
            "1 while nothing is written because the disk is nearly full",
            self.read_only.clone(),
        );
    }

    pub(crate) fn conflict(&self, table: &str) {
        let mut tables = self.conflict_tables.lock();
        let known = tables.contains(table)
            || (tables.len() < CONFLICT_TABLES_MAX && tables.insert(table.to_owned()));
        drop(tables);
        let table = if known { table } else { "other" }.to_owned();
        self.conflicts.get_or_create(&TableLabel { table }).inc();
    }

    pub(crate) fn refusal(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn checkpoint(&self, duration: Duration) {
        self.checkpoints.inc();
        self.checkpoint_seconds.observe(duration.as_secs_f64());
    }

    pub(crate) fn show_cluster(&self, status: &ClusterStatus) {
        if let Some(cluster) = &self.cluster {
            cluster.show(status);
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) =
            prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())
        {
            text.clear();
            let _ = writeln!(text, "# metrics could not be written: {error}");
        }
        text
    }
}

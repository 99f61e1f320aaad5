//! Redis Cluster: masters only, which share the slots evenly.

use crate::redis::Redis;
use crate::server::{SavedData, Server};
use crate::wait;

const SLOTS: usize = 16_384;

/// A cluster of Redis servers without replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts an empty cluster of so many nodes.
    #[must_use]
    pub fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[])
    }

    /// The same with settings of `redis.conf` as `name=value` for each node.
    #[must_use]
    pub fn start_with(nodes: usize, options: &[&str]) -> Self {
        assert!(nodes > 0, "a cluster has a node");
        let nodes: Vec<Redis> = (0..nodes).map(|_| Redis::start_node(options)).collect();
        for (index, node) in nodes.iter().enumerate() {
            let first = (index * SLOTS / nodes.len()).to_string();
            let last = ((index + 1) * SLOTS / nodes.len() - 1).to_string();
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            // Different ones from the start: otherwise the nodes must first agree on them.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        let (port, bus) = (nodes[0].port().to_string(), nodes[0].bus_port().to_string());
        for node in &nodes[1..] {
            node.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let cluster = Self { nodes };
        cluster.wait_until_whole();
        cluster
    }

    /// The nodes, which can be killed and started one by one; see [`Self::wait_until_whole`].
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// One url for each node.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }

    /// Waits until every node knows all others and serves all slots.
    pub fn wait_until_whole(&self) {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        let whole = wait::until_ok(|| {
            for node in &self.nodes {
                let info = node.command(&["CLUSTER", "INFO"]);
                let has = |line: &str| info.lines().any(|found| found.trim_end() == line);
                if !(has("cluster_state:ok") && has("cluster_slots_ok:16384") && has(&known)) {
                    return Err(info);
                }
            }
            Ok(())
        });
        if let Err(info) = whole {
            panic!("the cluster does not come together: {info}");
        }
    }
}

impl Server for RedisCluster {
    // Clients find the other nodes by the first one.
    fn url(&self) -> String {
        self.nodes[0].url()
    }

    fn port(&self) -> u16 {
        self.nodes[0].port()
    }

    fn pid(&self) -> u32 {
        self.nodes[0].pid()
    }

    fn kill(&self) {
        self.nodes.iter().for_each(Server::kill);
    }

    fn stop(&self) {
        self.nodes.iter().for_each(Server::stop);
    }

    fn start_again(&self) {
        self.nodes.iter().for_each(Server::start_again);
        self.wait_until_whole();
    }

    fn pause(&self) {
        self.nodes.iter().for_each(Server::pause);
    }

    fn resume(&self) {
        self.nodes.iter().for_each(Server::resume);
        self.wait_until_whole();
    }

    fn save_data(&self) -> SavedData {
        let mut saved: Vec<SavedData> = self.nodes.iter().map(Server::save_data).collect();
        let folders = saved
            .iter_mut()
            .flat_map(|node| std::mem::take(&mut node.folders));
        SavedData {
            folders: folders.collect(),
        }
    }

    fn restore_data(&self, saved: &SavedData) {
        assert_eq!(
            saved.folders.len(),
            self.nodes.len(),
            "this data is of a cluster of another size"
        );
        for (node, folder) in self.nodes.iter().zip(&saved.folders) {
            node.restore_from(folder);
        }
    }
}

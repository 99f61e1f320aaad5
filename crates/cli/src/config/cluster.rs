//! `[cluster]`: what makes a server one node of several. Without a number it is alone, and nothing
//! else of the section may be there: a node that forgot its number must not begin a log of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use onelog::{ClusterOptions, Join, NodeId, TlsFiles};

use super::keys::{Key, boolean};

/// Where a node listens for others, unless the settings say.
const DEFAULT_LISTEN: &str = "127.0.0.1:7171";
/// Why another machine cannot be reached, and what to set.
const NO_TLS: &str = "without certificates nodes are connected on one machine only: set cluster.certificate, cluster.key and cluster.authority (--peer-certificate, --peer-key, --peer-authority)";
/// The most bytes of an address.
const ADDRESS_BYTES_MAX: usize = 255;

/// The settings of the section, as they were given.
#[derive(Clone, Debug, Default)]
pub struct ClusterSettings {
    node: Option<NodeId>,
    listen: Option<SocketAddr>,
    address: Option<String>,
    peers: Vec<(NodeId, String)>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    authority: Option<PathBuf>,
    found: bool,
    join: Option<Join>,
}

macro_rules! key {
    ($name:literal, $flag:literal, $env:literal, $value:literal, $default:literal, $help:literal,
     |$settings:ident, $text:ident| $set:expr) => {
        Key {
            section: "cluster",
            name: $name,
            flag: $flag,
            env: $env,
            value_name: $value,
            default: $default,
            help: $help,
            set: |settings, $text| {
                let $settings = &mut settings.cluster;
                $set;
                Ok(())
            },
        }
    };
}

/// Every key of the section, in the order of the example.
pub const CLUSTER_KEYS: &[Key] = &[
    key!(
        "node",
        "node",
        "ONELOG_NODE",
        "NUMBER",
        "",
        "The number of this node in its cluster, from 1, never used again; without it the server is alone",
        |s, t| s.node = Some(number(t)?)
    ),
    key!(
        "listen",
        "peer-listen",
        "ONELOG_PEER_LISTEN",
        "ADDRESS",
        "\"127.0.0.1:7171\"",
        "Where this node listens for the other nodes, IP:PORT; without certificates a loopback address",
        |s, t| s.listen = Some(listen(t)?)
    ),
    key!(
        "address",
        "peer-address",
        "ONELOG_PEER_ADDRESS",
        "ADDRESS",
        "",
        "By which the other nodes reach it, HOST:PORT; where it listens, unless it is set",
        |s, t| s.address = Some(address(t)?)
    ),
    key!(
        "peers",
        "peers",
        "ONELOG_PEERS",
        "LIST",
        "[]",
        "Other nodes as NUMBER=HOST:PORT, several with commas between them; one that answers is enough",
        |s, t| s.peers = peers(t)?
    ),
    key!(
        "certificate",
        "peer-certificate",
        "ONELOG_PEER_CERTIFICATE",
        "FILE",
        "",
        "This node's certificate, PEM, for the name node-NUMBER.onelog",
        |s, t| s.certificate = Some(file(t)?)
    ),
    key!(
        "key",
        "peer-key",
        "ONELOG_PEER_KEY",
        "FILE",
        "",
        "The key of the certificate, PEM",
        |s, t| s.key = Some(file(t)?)
    ),
    key!(
        "authority",
        "peer-authority",
        "ONELOG_PEER_AUTHORITY",
        "FILE",
        "",
        "The certificate of the authority that has signed those of all nodes, PEM",
        |s, t| s.authority = Some(file(t)?)
    ),
    key!(
        "found",
        "found",
        "ONELOG_FOUND",
        "BOOL",
        "false",
        "Begin a log on node 1 though some of its peers do not answer; for the very first start alone",
        |s, t| s.found = boolean(t)?
    ),
    key!(
        "join",
        "join",
        "ONELOG_JOIN",
        "ROLE",
        "",
        "Have this node added by its own request, as learner or as voter; else it waits to be added",
        |s, t| s.join = Some(join(t)?)
    ),
];

impl ClusterSettings {
    /// The node's options; `None` where it is alone. An error names the settings that are missing or
    /// do not go together.
    pub fn options(&self) -> Result<Option<ClusterOptions>, String> {
        let Some(node) = self.node else {
            return match self.first_set() {
                None => Ok(None),
                Some(set) => Err(format!(
                    "{set} is set and the number of the node is not: set cluster.node (--node, ONELOG_NODE) as well, or take it away for a server that is alone"
                )),
            };
        };
        let listen = match self.listen {
            Some(listen) => listen,
            None => self::listen(DEFAULT_LISTEN)?,
        };
        let tls = self.tls()?;
        if tls.is_none() && !listen.ip().is_loopback() {
            return Err(format!(
                "cluster.listen is {listen}, which other machines reach, and {NO_TLS}, or a loopback address"
            ));
        }
        if listen.ip().is_unspecified() && self.address.is_none() {
            return Err(format!(
                "cluster.listen is {listen}, which is the address of no machine: set cluster.address (--peer-address) to the HOST:PORT by which the other nodes reach this one"
            ));
        }
        self.check_peers(tls.is_some())?;
        Ok(Some(ClusterOptions {
            address: self.address.clone(),
            peers: self.other_peers(node),
            tls,
            found: self.found,
            join: self.join,
            ..ClusterOptions::new(node, listen)
        }))
    }

    fn first_set(&self) -> Option<&'static str> {
        [
            ("cluster.listen", self.listen.is_some()),
            ("cluster.address", self.address.is_some()),
            ("cluster.peers", !self.peers.is_empty()),
            ("cluster.certificate", self.certificate.is_some()),
            ("cluster.key", self.key.is_some()),
            ("cluster.authority", self.authority.is_some()),
            ("cluster.found", self.found),
            ("cluster.join", self.join.is_some()),
        ]
        .into_iter()
        .find_map(|(name, is_set)| is_set.then_some(name))
    }

    fn tls(&self) -> Result<Option<TlsFiles>, String> {
        match (&self.certificate, &self.key, &self.authority) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(authority)) => Ok(Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                authority: authority.clone(),
            })),
            (certificate, key, authority) => {
                let missing = [
                    ("cluster.certificate (--peer-certificate)", certificate),
                    ("cluster.key (--peer-key)", key),
                    ("cluster.authority (--peer-authority)", authority),
                ];
                let missing = missing.into_iter().filter(|(_, file)| file.is_none());
                let missing: Vec<&str> = missing.map(|(name, _)| name).collect();
                Err(format!(
                    "certificate, key and authority go together: set {} as well",
                    missing.join(" and ")
                ))
            }
        }
    }

    /// The others among the peers: with itself in the list a file is the same on all nodes.
    fn other_peers(&self, node: NodeId) -> Vec<(NodeId, String)> {
        let others = self.peers.iter().filter(|(peer, _)| *peer != node);
        others.cloned().collect()
    }

    fn check_peers(&self, has_tls: bool) -> Result<(), String> {
        for (place, (peer, address)) in self.peers.iter().enumerate() {
            let is_elsewhere = |at: SocketAddr| !at.ip().is_loopback();
            if !has_tls && address.parse().is_ok_and(is_elsewhere) {
                return Err(format!(
                    "cluster.peers: {peer}={address} is on another machine, and {NO_TLS}"
                ));
            }
            let mut before = self.peers[..place].iter();
            if let Some((_, other)) = before.find(|(other, _)| other == peer) {
                return Err(format!(
                    "cluster.peers: node {peer} is there twice, as {other} and as {address}"
                ));
            }
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<NodeId, String> {
    match text.parse() {
        // The last number is that of read replicas.
        Ok(number) if number > 0 && number < u64::MAX => Ok(NodeId(number)),
        _ => Err(format!(
            "'{text}' is not the number of a node: expected a whole number from 1"
        )),
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let address: Result<SocketAddr, _> = text.parse();
    address.map_err(|_| {
        format!(
            "'{text}' is not an address to listen on: expected IP:PORT, such as {DEFAULT_LISTEN}"
        )
    })
}

fn address(text: &str) -> Result<String, String> {
    let has_form = text.len() <= ADDRESS_BYTES_MAX
        && text.rsplit_once(':').is_some_and(|(host, port)| {
            let is_bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
            !host.is_empty()
                && !host.contains(char::is_whitespace)
                && !is_bare_v6
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
    match has_form {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "'{text}' is not the address of a node: expected HOST:PORT, such as {DEFAULT_LISTEN}"
        )),
    }
}

fn peers(text: &str) -> Result<Vec<(NodeId, String)>, String> {
    let entries = text.split(',').map(str::trim);
    let entries = entries.filter(|entry| !entry.is_empty());
    let peer = |entry: &str| {
        let Some((node, at)) = entry.split_once('=') else {
            return Err(format!(
                "'{entry}' is not a node with its address: expected NUMBER=HOST:PORT, such as 1={DEFAULT_LISTEN}"
            ));
        };
        Ok((number(node.trim())?, address(at.trim())?))
    };
    entries.map(peer).collect()
}

fn file(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("a file needs a name".to_owned()),
        _ => Ok(PathBuf::from(text)),
    }
}

fn join(text: &str) -> Result<Join, String> {
    match text {
        "learner" => Ok(Join::Learner),
        "voter" => Ok(Join::Voter),
        _ => Err(format!("'{text}' is not one of learner, voter")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::super::settings::Settings;
    use super::*;

    fn options(given: &[(&str, &str)]) -> Result<Option<ClusterOptions>, String> {
        let mut settings = Settings::default();
        for (name, text) in given {
            let key = keys::all().find(|key| key.path() == format!("cluster.{name}"));
            (key.unwrap().set)(&mut settings, text)?;
        }
        settings.cluster.options()
    }

    #[track_caller]
    fn refused(given: &[(&str, &str)], expected: &str) {
        let refused = options(given).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }

    #[test]
    fn without_a_number_the_server_is_alone_and_nothing_else_is_set() {
        assert!(options(&[]).unwrap().is_none());
        for (name, text) in [
            ("listen", "127.0.0.1:1"),
            ("address", "a:1"),
            ("peers", "1=a:1"),
            ("certificate", "c"),
            ("key", "k"),
            ("authority", "a"),
            ("found", "true"),
            ("join", "voter"),
        ] {
            refused(&[(name, text)], "set cluster.node (--node, ONELOG_NODE)");
            refused(&[(name, text)], &format!("cluster.{name} is set"));
        }
    }

    #[test]
    fn a_node_has_a_number_an_address_and_peers() {
        let given = [
            ("node", "3"),
            ("peers", "1=one:7171, 2=[::1]:7171, 3=itself:7171"),
            ("join", "learner"),
        ];
        let node = options(&given).unwrap().unwrap();
        assert_eq!(node.node, NodeId(3));
        assert_eq!(node.listen.to_string(), DEFAULT_LISTEN);
        let peers = [(NodeId(1), "one:7171"), (NodeId(2), "[::1]:7171")];
        let peers = peers.map(|(node, address)| (node, address.to_owned()));
        assert_eq!(node.peers, peers);
        assert_eq!(node.join, Some(Join::Learner));
    }

    #[test]
    fn what_is_given_by_half_or_does_not_go_together_is_refused_with_the_key_to_set() {
        for number in ["0", "-1", "one", ""] {
            refused(&[("node", number)], "a whole number from 1");
        }
        for address in [
            "one",
            "one:",
            ":1",
            "one:0",
            "one:70000",
            "::1:7171",
            "a b:1",
        ] {
            refused(&[("node", "1"), ("address", address)], "expected HOST:PORT");
            let peer = format!("2={address}");
            refused(&[("node", "1"), ("peers", &peer)], "expected HOST:PORT");
        }
        refused(&[("peers", "one:7171")], "expected NUMBER=HOST:PORT");
        refused(&[("listen", "one:7171")], "expected IP:PORT");
        refused(&[("join", "leader")], "not one of learner, voter");
        refused(
            &[("node", "2"), ("peers", "1=a:1,1=b:1")],
            "node 1 is there twice",
        );
        refused(
            &[("node", "2"), ("certificate", "c")],
            "set cluster.key (--peer-key) and cluster.authority (--peer-authority) as well",
        );
        refused(
            &[("node", "2"), ("listen", "10.0.0.1:7171")],
            "set cluster.certificate",
        );
        let peers = [("node", "2"), ("peers", "1=10.0.0.1:7171")];
        refused(&peers, "is on another machine");
        let tls = [("certificate", "c"), ("key", "k"), ("authority", "a")];
        let everywhere = [("node", "2"), ("listen", "0.0.0.0:7171")];
        let given: Vec<_> = everywhere.into_iter().chain(tls).collect();
        refused(&given, "set cluster.address (--peer-address)");
        let given: Vec<_> = given.into_iter().chain([("address", "b:7171")]).collect();
        assert!(options(&given).unwrap().unwrap().tls.is_some());
    }
}

//! The servers behind an address: one Redis, or the masters of a cluster; and whether they can be
//! trusted with rows at all.

use std::collections::HashMap;

use onelog_store::{StoreError, choose_cryptography, read_pem};
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsCertificates,
    Value,
};

use super::link::Link;
use crate::bookkeeping::{Names, owners_slot};
use crate::error::{REPLICA, classify};
use crate::kind::RedisTarget;

/// The oldest version: older ones have no `UNLINK`-safe scripts with replicated effects by default.
const VERSION_MIN: u32 = 6;

/// The servers, and which of them has which partition.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) links: Vec<Link>,
    /// Which link a partition belongs to.
    pub(crate) of_partition: Vec<usize>,
    /// Which link has the key `onelog:owners`.
    pub(crate) of_owners: usize,
    /// Whether keys of different slots are on different servers.
    pub(crate) is_cluster: bool,
    infos: Vec<ConnectionInfo>,
}

impl Servers {
    /// Connects to all of them and checks their settings.
    pub(crate) fn connect(target: &RedisTarget, names: &Names) -> Result<Self, StoreError> {
        let place = target.server.url.shown();
        let seeds = addresses(target)?;
        let mut last = None;
        for seed in &seeds {
            match Self::connect_by(seed, target, names, &place) {
                // Another of the hosts may be the master.
                Err(error @ StoreError::NotWritable { .. }) => last = Some(error),
                Err(error @ StoreError::Unavailable { .. }) => {
                    last.get_or_insert(error);
                }
                done => return done,
            }
        }
        Err(last.unwrap_or_else(|| StoreError::Broken {
            what: format!("connecting to Redis at {place}"),
            cause: "the address names no host".into(),
        }))
    }

    fn connect_by(
        seed: &ConnectionInfo,
        target: &RedisTarget,
        names: &Names,
        place: &str,
    ) -> Result<Self, StoreError> {
        let mut link = Link::connect(seed, place)?;
        let facts = ServerInfo::read(&mut link)?;
        // Of a cluster, any node can say which are the masters.
        match (facts.is_cluster(), target.partitions) {
            (false, _) => {
                facts.check(place)?;
                Ok(Self::single(link, seed, names))
            }
            (true, Some(_)) => Self::cluster(link, seed, names),
            (true, None) => Err(StoreError::Broken {
                what: format!("connecting to Redis at {place}"),
                cause: "this is a Redis Cluster: give 'partitions' in the definition of the sink, for example 256".into(),
            }),
        }
    }

    fn single(link: Link, info: &ConnectionInfo, names: &Names) -> Self {
        Self {
            links: vec![link],
            of_partition: vec![0; names.partitions()],
            of_owners: 0,
            is_cluster: false,
            infos: vec![info.clone()],
        }
    }

    fn cluster(mut seed: Link, info: &ConnectionInfo, names: &Names) -> Result<Self, StoreError> {
        let slots = Slots::read(&mut seed, info)?;
        let mut out = Self {
            links: Vec::new(),
            of_partition: Vec::with_capacity(names.partitions()),
            of_owners: 0,
            is_cluster: true,
            infos: Vec::new(),
        };
        let mut known: HashMap<(String, u16), usize> = HashMap::new();
        for (_, _, host, port) in &slots.0 {
            if known.contains_key(&(host.clone(), *port)) {
                continue;
            }
            let address = at(info.addr(), host, *port);
            let info = info.clone().set_addr(address);
            let place = format!("{host}:{port}");
            let mut link = Link::connect(&info, &place)?;
            ServerInfo::read(&mut link)?.check(&place)?;
            known.insert((host.clone(), *port), out.links.len());
            out.links.push(link);
            out.infos.push(info);
        }
        let link_of = |slot: u16| {
            let found = slots.master(slot).and_then(|key| known.get(&key).copied());
            found.ok_or_else(|| StoreError::Unavailable {
                what: format!(
                    "requesting the cluster's nodes from Redis at {}",
                    seed.place
                ),
                cause: format!("no node has slot {slot} at the moment").into(),
            })
        };
        for partition in 0..names.partitions() {
            out.of_partition.push(link_of(names.slot_of(partition))?);
        }
        out.of_owners = link_of(owners_slot())?;
        Ok(out)
    }

    /// The link of a partition.
    pub(crate) fn link(&mut self, partition: usize) -> &mut Link {
        &mut self.links[self.of_partition[partition]]
    }

    /// Each link with its partitions.
    pub(crate) fn by_link(&mut self) -> Vec<(&mut Link, Vec<usize>)> {
        let mut out: Vec<(&mut Link, Vec<usize>)> = self
            .links
            .iter_mut()
            .map(|link| (link, Vec::new()))
            .collect();
        for (partition, link) in self.of_partition.iter().enumerate() {
            out[*link].1.push(partition);
        }
        out
    }

    /// New connections to the same servers, for a reader beside the sink.
    pub(crate) fn connect_again(&self) -> Result<Self, StoreError> {
        let links = self.infos.iter().zip(&self.links);
        let links = links.map(|(info, link)| Link::connect(info, &link.place));
        Ok(Self {
            links: links.collect::<Result<_, _>>()?,
            of_partition: self.of_partition.clone(),
            of_owners: self.of_owners,
            is_cluster: self.is_cluster,
            infos: self.infos.clone(),
        })
    }
}

/// How to reach each host of the address: `redis://user:password@one:6379,two:6379/0`.
fn addresses(target: &RedisTarget) -> Result<Vec<ConnectionInfo>, StoreError> {
    let place = target.server.url.shown();
    let broken = |cause: onelog_store::Cause| StoreError::Broken {
        what: format!("connecting to Redis at {place}"),
        cause,
    };
    let text = target
        .server
        .url
        .resolve()
        .map_err(|error| broken(error.into()))?;
    let trusted = match &target.server.ca_file {
        None => None,
        Some(path) => Some(read_pem(path).map_err(|error| broken(error.into()))?),
    };
    if text.starts_with("rediss") {
        choose_cryptography();
    }
    let mut out = Vec::new();
    for url in each_host(&text) {
        let info = url
            .into_connection_info()
            .and_then(|info| match (&trusted, info.addr()) {
                (Some(certificates), ConnectionAddr::TcpTls { .. }) => {
                    let certificates = TlsCertificates {
                        client_tls: None,
                        root_cert: Some(certificates.clone()),
                    };
                    let client = Client::build_with_tls(info, certificates)?;
                    Ok(client.get_connection_info().clone())
                }
                _ => Ok(info),
            })
            .map_err(|error| classify("connecting to", &place, error))?;
        // The older protocol has one form for every answer that is used here.
        let settings = info.redis_settings().clone();
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        out.push(
            info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP2))
                .set_tcp_settings(tcp),
        );
    }
    Ok(out)
}

/// One address for each host between commas.
fn each_host(text: &str) -> Vec<String> {
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].rfind('@').map_or(start, |at| start + at + 1);
    let (before, rest) = text.split_at(end);
    let hosts_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (hosts, behind) = rest.split_at(hosts_end);
    hosts
        .split(',')
        .map(|host| format!("{before}{host}{behind}"))
        .collect()
}

/// The address of another node, reached in the same way.
fn at(like: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    match like {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host: host.to_owned(),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    }
}

/// What a server says about itself.
struct ServerInfo(HashMap<String, String>);

impl ServerInfo {
    fn read(link: &mut Link) -> Result<Self, StoreError> {
        let what = "requesting the state of";
        match link.request(what, &[b"INFO"])? {
            Value::BulkString(text) => Ok(Self(
                String::from_utf8_lossy(&text)
                    .lines()
                    .filter_map(|line| line.split_once(':'))
                    .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                    .collect(),
            )),
            other => Err(link.unexpected(what, &other)),
        }
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn is_cluster(&self) -> bool {
        self.get("cluster_enabled") == "1"
    }

    fn check(&self, place: &str) -> Result<(), StoreError> {
        let what = || format!("using Redis at {place}");
        let broken = |cause: String| {
            Err(StoreError::Broken {
                what: what(),
                cause: cause.into(),
            })
        };
        let version = self.get("redis_version");
        let major = version.split('.').next().and_then(|part| part.parse().ok());
        if major.is_none_or(|major: u32| major < VERSION_MIN) {
            return broken(format!(
                "its version is '{version}'; version {VERSION_MIN} or later is needed"
            ));
        }
        if self.get("loading") == "1" {
            return Err(StoreError::Unavailable {
                what: what(),
                cause: "it is still loading its data".into(),
            });
        }
        if !matches!(self.get("role"), "master" | "") {
            return Err(StoreError::NotWritable {
                what: what(),
                cause: REPLICA.into(),
            });
        }
        let policy = self.get("maxmemory_policy");
        if !matches!(self.get("maxmemory"), "0" | "") && policy.starts_with("allkeys") {
            return broken(format!(
                "its 'maxmemory-policy' is '{policy}': when memory is short it would throw away rows and positions silently. Set it to 'noeviction' (CONFIG SET maxmemory-policy noeviction, and in its configuration file), or to a 'volatile-…' one, which throws away only keys with a time to live"
            ));
        }
        Ok(())
    }
}

/// Which master has which slots.
struct Slots(Vec<(u16, u16, String, u16)>);

impl Slots {
    fn read(link: &mut Link, info: &ConnectionInfo) -> Result<Self, StoreError> {
        let what = "requesting the cluster's nodes";
        let own = match info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => "localhost".to_owned(),
        };
        let answer = link.request(what, &[b"CLUSTER", b"SLOTS"])?;
        let Value::Array(ranges) = &answer else {
            return Err(link.unexpected(what, &answer));
        };
        let mut out = Vec::with_capacity(ranges.len());
        for range in ranges {
            match Self::range(range, &own) {
                Some(range) => out.push(range),
                None => return Err(link.unexpected(what, range)),
            }
        }
        Ok(Self(out))
    }

    fn range(value: &Value, own: &str) -> Option<(u16, u16, String, u16)> {
        let Value::Array(parts) = value else {
            return None;
        };
        let number = |value: &Value| match value {
            Value::Int(number) => u16::try_from(*number).ok(),
            _ => None,
        };
        let Value::Array(master) = parts.get(2)? else {
            return None;
        };
        let host = match master.first()? {
            Value::BulkString(host) if !host.is_empty() && host != b"?" => {
                String::from_utf8(host.clone()).ok()?
            }
            // A node that does not know its own name is the one that was queried.
            _ => own.to_owned(),
        };
        Some((
            number(parts.first()?)?,
            number(parts.get(1)?)?,
            host,
            number(master.get(1)?)?,
        ))
    }

    fn master(&self, slot: u16) -> Option<(String, u16)> {
        self.0
            .iter()
            .find(|(first, last, ..)| (*first..=*last).contains(&slot))
            .map(|(_, _, host, port)| (host.clone(), *port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_name_several_hosts() {
        assert_eq!(
            each_host("redis://u:p,@w@one:1,two:2/0?protocol=resp2"),
            [
                "redis://u:p,@w@one:1/0?protocol=resp2",
                "redis://u:p,@w@two:2/0?protocol=resp2"
            ]
        );
        assert_eq!(each_host("rediss://host"), ["rediss://host"]);
    }

    #[test]
    fn settings_that_would_lose_rows_are_refused() {
        let facts = |text: &str| {
            ServerInfo(
                text.split(' ')
                    .filter_map(|part| part.split_once(':'))
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
            )
        };
        let good = "redis_version:7.2.4 role:master maxmemory:0 maxmemory_policy:allkeys-lru";
        facts(good).check("here").unwrap();
        let volatile = good.replace("maxmemory:0", "maxmemory:9");
        facts(&volatile.replace("allkeys", "volatile"))
            .check("here")
            .unwrap();
        for (bad, expected) in [
            (good.replace("7.2.4", "5.0.1"), "version"),
            (volatile, "noeviction"),
        ] {
            let error = facts(&bad).check("here").unwrap_err();
            assert!(
                !error.is_retryable() && error.to_string().contains(expected),
                "{error}"
            );
        }
        let replica = facts(&good.replace("master", "slave")).check("here");
        assert!(
            matches!(replica, Err(StoreError::NotWritable { .. })),
            "{replica:?}"
        );
        assert!(
            facts(&format!("{good} loading:1"))
                .check("here")
                .unwrap_err()
                .is_retryable()
        );
    }
}

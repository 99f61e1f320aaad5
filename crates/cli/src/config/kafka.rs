//! `[kafka]`: the door for Kafka clients. Without an address there is none, and nothing else of the
//! section may be there.

use std::net::SocketAddr;

use onelog_kafka::{Advertised, KafkaOptions};

use super::keys::{Key, boolean, count};

/// The settings of the section, as they were given.
#[derive(Clone, Debug, Default)]
pub struct KafkaSettings {
    listen: Option<SocketAddr>,
    advertised: Option<Advertised>,
    create_topics: Option<bool>,
    max_connections: Option<usize>,
}

macro_rules! key {
    ($name:literal, $flag:literal, $env:literal, $value:literal, $default:literal, $help:literal,
     |$settings:ident, $text:ident| $set:expr) => {
        Key {
            section: "kafka",
            name: $name,
            flag: $flag,
            env: $env,
            value_name: $value,
            default: $default,
            help: $help,
            set: |settings, $text| {
                let $settings = &mut settings.kafka;
                $set;
                Ok(())
            },
        }
    };
}

/// Every key of the section, in the order of the example.
pub const KAFKA_KEYS: &[Key] = &[
    key!(
        "listen",
        "kafka",
        "ONELOG_KAFKA",
        "ADDRESS",
        "\"127.0.0.1:9092\"",
        "Where Kafka clients are served, IP:PORT, a loopback address; without it they are not",
        |s, t| s.listen = Some(listen(t)?)
    ),
    key!(
        "advertised",
        "kafka-advertised",
        "ONELOG_KAFKA_ADVERTISED",
        "ADDRESS",
        "",
        "Where Kafka clients are sent to connect, HOST:PORT; where it listens, unless it is set",
        |s, t| s.advertised = Some(t.parse()?)
    ),
    key!(
        "create_topics",
        "kafka-create-topics",
        "ONELOG_KAFKA_CREATE_TOPICS",
        "BOOL",
        "false",
        "Whether a Kafka client that asks for an unknown topic gets a table of it (stream, bytes)",
        |s, t| s.create_topics = Some(boolean(t)?)
    ),
    key!(
        "max_connections",
        "kafka-max-connections",
        "ONELOG_KAFKA_MAX_CONNECTIONS",
        "COUNT",
        "1024",
        "How many connections of Kafka clients may be open; one more is closed",
        |s, t| s.max_connections = Some(count(t, 1, 1 << 16)?)
    ),
];

impl KafkaSettings {
    /// The door's options; `None` where there is none.
    pub fn options(&self) -> Result<Option<KafkaOptions>, String> {
        let Some(listen) = self.listen else {
            return match self.first_set() {
                None => Ok(None),
                Some(set) => Err(format!(
                    "{set} is set and where Kafka clients are served is not: set kafka.listen (--kafka, ONELOG_KAFKA) as well, or take it away"
                )),
            };
        };
        let default = KafkaOptions::default();
        Ok(Some(KafkaOptions {
            listen,
            advertised: self.advertised.clone(),
            create_topics: self.create_topics.unwrap_or(default.create_topics),
            max_connections: self.max_connections.unwrap_or(default.max_connections),
            ..default
        }))
    }

    fn first_set(&self) -> Option<&'static str> {
        [
            ("kafka.advertised", self.advertised.is_some()),
            ("kafka.create_topics", self.create_topics.is_some()),
            ("kafka.max_connections", self.max_connections.is_some()),
        ]
        .into_iter()
        .find_map(|(name, is_set)| is_set.then_some(name))
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("'{text}' is not an address: expected IP:PORT, such as 127.0.0.1:9092")
    })?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "{address} is reached by other machines, and Kafka clients are served without TLS and without passwords: give a loopback address, such as 127.0.0.1:9092"
        ));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_clients_are_served_on_this_machine_only() {
        assert!(listen("127.0.0.1:0").is_ok() && listen("[::1]:9092").is_ok());
        let refused = listen("0.0.0.0:9092").unwrap_err();
        assert!(refused.contains("give a loopback address"), "{refused}");
    }

    #[test]
    fn without_an_address_nothing_else_may_be_set() {
        assert!(KafkaSettings::default().options().unwrap().is_none());
        let settings = KafkaSettings {
            create_topics: Some(true),
            ..KafkaSettings::default()
        };
        let refused = settings.options().unwrap_err();
        assert!(refused.contains("set kafka.listen (--kafka"), "{refused}");
    }
}

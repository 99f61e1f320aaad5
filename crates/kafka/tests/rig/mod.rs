//! A node, its door and clients of it.

#![allow(dead_code)] // no test has use for all of it

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use onelog::{Node, Options};
use onelog_kafka::KafkaOptions;
use onelog_sinks::Sinks;
use onelog_store::Kinds;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// The number under which every request is sent.
const CORRELATION: i32 = 7;
const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Rig {
    pub node: Node,
    sinks: Sinks,
    runtime: Runtime,
    first: Door,
    _folder: tempfile::TempDir,
}

/// A port on which a node is served; it closes with this.
pub struct Door {
    address: SocketAddr,
    _end: oneshot::Sender<()>,
}

impl Rig {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::open(Options::new(folder.path())).unwrap();
        let sinks = Sinks::start(node.clone(), Kinds::new(&[])).unwrap();
        let runtime = Runtime::new().unwrap();
        let first = Door::open(&runtime, &node, &sinks);
        Self {
            node,
            sinks,
            runtime,
            first,
            _folder: folder,
        }
    }

    /// A door that knows nothing of what the first one remembers.
    pub fn second_door(&self) -> Door {
        Door::open(&self.runtime, &self.node, &self.sinks)
    }

    pub fn port(&self) -> u16 {
        self.first.address.port()
    }

    pub fn connect(&self) -> Client {
        self.first.connect()
    }
}

impl Door {
    fn open(runtime: &Runtime, node: &Node, sinks: &Sinks) -> Self {
        let bound = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(bound).unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let (node, sinks) = (node.clone(), sinks.clone());
        runtime.spawn(async move {
            let shutdown = async { drop(ended.await) };
            onelog_kafka::serve(node, sinks, KafkaOptions::default(), listener, shutdown)
                .await
                .unwrap();
        });
        Self { address, _end: end }
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Client(stream)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.sinks.stop();
        self.node.stop().unwrap();
    }
}

pub struct Client(TcpStream);

impl Client {
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next answer, without its size.
    pub fn receive(&mut self) -> Bytes {
        let mut size = [0; 4];
        self.0.read_exact(&mut size).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(size) as usize];
        self.0.read_exact(&mut answer).unwrap();
        answer.into()
    }

    /// Whether the server ends the connection.
    pub fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Sends a request whose body is given as bytes; the body of the answer, with the tagged fields of
    /// its header where there are any.
    pub fn call(&mut self, key: i16, version: i16, body: &[u8]) -> Bytes {
        self.send(&frame(key, version, body));
        let mut answer = self.receive();
        let correlation = answer.split_to(4);
        assert_eq!(correlation[..], CORRELATION.to_be_bytes());
        answer
    }

    pub fn ask<A: Decodable>(&mut self, key: i16, version: i16, request: &impl Encodable) -> A {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        let mut answer = self.call(key, version, &body);
        let api = ApiKey::try_from(key).unwrap();
        if api.response_header_version(version) > 0 {
            assert_eq!(answer.split_to(1)[..], [0], "no tagged fields");
        }
        decode(answer, version)
    }
}

/// A request as it is sent.
pub fn frame(key: i16, version: i16, body: &[u8]) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(CORRELATION);
    let header_version = match ApiKey::try_from(key) {
        Ok(api) => api.request_header_version(version),
        Err(()) => 1,
    };
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, header_version).unwrap();
    frame.extend_from_slice(body);
    let size = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&size.to_be_bytes());
    frame.freeze()
}

pub fn decode<A: Decodable>(mut body: Bytes, version: i16) -> A {
    let answer = A::decode(&mut body, version).unwrap();
    assert!(body.is_empty(), "bytes behind the answer");
    answer
}

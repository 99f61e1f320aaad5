//! A server on loopback with a temporary folder, and a client that writes and reads raw bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use onelog::{Node, Options};
use onelog_http::HttpOptions;
use onelog_sinks::Sinks;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// A test that hangs must fail; nothing is measured with this.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    pub address: SocketAddr,
    pub node: Node,
    pub folder: tempfile::TempDir,
    sinks: Sinks,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(HttpOptions::default())
    }

    pub fn with(options: HttpOptions) -> Self {
        Self::with_node(options, |_| {})
    }

    pub fn with_node(options: HttpOptions, tune: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut node_options = Options::new(folder.path().join("data"));
        node_options.segment_bytes = 1 << 20;
        tune(&mut node_options);
        let node = Node::open(node_options).unwrap();
        let sinks = Sinks::start(node.clone(), onelog_stores::KINDS).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (served_node, served_sinks) = (node.clone(), sinks.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let shutdown = async {
                    let _ = stopped.await;
                };
                onelog_http::serve(served_node, served_sinks, options, listener, shutdown).await
            })
        });
        Self {
            address,
            node,
            folder,
            sinks,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// A server with a keyed table of JSON, one of bytes and a stream.
    pub fn with_tables() -> Self {
        let server = Self::start();
        server.make_tables();
        server
    }

    pub fn make_tables(&self) {
        for table in [
            json!({"name": "shop.orders", "kind": "keyed", "value": "json"}),
            json!({"name": "shop.blobs", "kind": "keyed", "value": "bytes"}),
            json!({"name": "shop.clicks", "kind": "stream", "value": "json"}),
        ] {
            self.post("/v1/tables", &table).expect(201);
        }
    }

    /// Closes the door, and returns when it is closed.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends raw bytes and reads the answer.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        Answer::read(&mut BufReader::new(stream))
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method == "POST" {
            request += &format!("content-length: {}\r\n", body.len());
        }
        request += "\r\n";
        self.raw(&[request.as_bytes(), body].concat())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], body.to_string().as_bytes())
    }

    pub fn commit(&self, transaction: &Value) -> Answer {
        self.post("/v1/transactions", transaction)
    }

    /// Puts one value; answers the position behind it.
    pub fn put(&self, table: &str, key: &str, value: Value) -> u64 {
        let write = json!({"op": "put", "table": table, "key": key, "value": value});
        let answer = self.commit(&json!({"writes": [write]})).expect(200);
        answer["position"].as_u64().unwrap()
    }

    /// Opens a stream of events.
    pub fn follow(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let mut stream = self.connect();
        let mut request =
            format!("GET {path} HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream
            .write_all(format!("{request}\r\n").as_bytes())
            .unwrap();
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader);
        Events {
            status,
            headers,
            chunks: Chunks {
                reader,
                left: 0,
                ended: false,
            },
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.sinks.stop();
        let _ = self.node.stop();
    }
}

impl Answer {
    pub fn read(reader: &mut BufReader<TcpStream>) -> Self {
        let (status, headers) = read_head(reader);
        let mut answer = Self {
            status,
            headers,
            body: Vec::new(),
        };
        if let Some(length) = answer.header("content-length") {
            answer.body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut answer.body).unwrap();
        } else {
            let mut chunks = Chunks {
                reader,
                left: 0,
                ended: false,
            };
            chunks.read_to_end(&mut answer.body).unwrap();
        }
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The body, when the status is the expected one.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// The body of an error: its status, its code, and that it says what to do.
    #[track_caller]
    pub fn refused(&self, status: u16, error: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(body["error"], error, "{body}");
        assert!(body["message"].as_str().unwrap().len() > 10, "{body}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        body
    }

    /// The lines of NDJSON.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.text().lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn read_head<R: BufRead>(reader: &mut R) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("no answer: {line:?}"));
    let status = status.parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            return (status, headers);
        };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
}

struct Chunks<R> {
    reader: R,
    left: usize,
    ended: bool,
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        if self.left == 0 {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                return Err(std::io::Error::other("the body was cut off"));
            }
            self.left = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            if self.left == 0 {
                self.ended = true;
                self.reader.read_line(&mut String::new())?;
                return Ok(0);
            }
        }
        let wanted = out.len().min(self.left);
        let read = self.reader.read(&mut out[..wanted])?;
        self.left -= read;
        if self.left == 0 {
            self.reader.read_line(&mut String::new())?;
        }
        Ok(read)
    }
}

#[derive(Debug, PartialEq)]
pub struct Event {
    pub id: u64,
    /// None: a sign of life.
    pub data: Option<Value>,
}

pub struct Events {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    chunks: Chunks<BufReader<TcpStream>>,
}

impl Events {
    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            if self.chunks.read(&mut byte).unwrap() == 0 {
                assert!(line.is_empty(), "a stream ends behind a whole line");
                return None;
            }
            if byte[0] == b'\n' {
                return Some(String::from_utf8(line).unwrap());
            }
            line.push(byte[0]);
        }
    }

    /// The next event or sign of life; `None` at the end of the stream.
    pub fn any(&mut self) -> Option<Event> {
        let (mut id, mut data) = (None, None);
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(Event {
                    id: id.expect("every event has an id"),
                    data,
                });
            }
            match line.split_once(": ").unwrap() {
                ("id", text) => id = Some(text.parse().unwrap()),
                ("data", text) => data = Some(serde_json::from_str(text).unwrap()),
                ("event", kind) => assert_eq!(kind, "transaction"),
                (other, _) => assert_eq!(other, ""),
            }
        }
    }

    /// The next event that is a transaction.
    pub fn transaction(&mut self) -> (u64, Value) {
        loop {
            let event = self.any().expect("the stream goes on");
            if let Some(data) = event.data {
                assert_eq!(data["position"], event.id);
                return (event.id, data);
            }
        }
    }
}

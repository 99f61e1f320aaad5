//! Transactions over HTTP, beside a bare handler that answers without doing anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use onelog::{NewTable, Node};
use onelog_http::HttpOptions;
use onelog_sinks::Sinks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::Bench;
use crate::figures::{Figure, quantile};
use crate::load::Failure;

const CONNECTIONS: usize = 64;
const SERVER_THREADS: usize = 2;

/// One put of a JSON document of about 100 B a transaction, 64 connections.
pub fn run(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    let node = bench.open("http")?;
    node.create_table_blocking(NewTable::keyed("bench.http"))?;
    let sinks = Sinks::start(node.clone(), onelog_stores::KINDS)?;
    let server = Server::onelog(node.clone(), sinks.clone())?;
    let bare = Server::bare()?;
    let (mut rates, mut bare_rates, mut medians, mut tails) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let mut load = load(server.address, bench.round / 2)?;
        rates.push(load.rate);
        medians.push(quantile(&mut load.latencies_ms, 0.5));
        tails.push(quantile(&mut load.latencies_ms, 0.99));
        bare_rates.push(self::load(bare.address, bench.round / 4)?.rate);
    }
    server.stop();
    bare.stop();
    sinks.stop();
    bench.close(node, "http")?;
    Ok(vec![
        Figure::new(
            "HTTP, 64 connections, one put each",
            "transactions/s",
            rates,
        )
        .beside("an axum handler that does nothing", &bare_rates)
        .note("client and server share the cores"),
        Figure::new("their latency, median", "ms", medians),
        Figure::new("their latency, p99", "ms", tails),
    ])
}

struct Server {
    address: SocketAddr,
    runtime: Runtime,
    stop: oneshot::Sender<()>,
}

impl Server {
    fn runtime() -> std::io::Result<Runtime> {
        Builder::new_multi_thread()
            .worker_threads(SERVER_THREADS)
            .enable_all()
            .build()
    }

    fn onelog(node: Node, sinks: Sinks) -> Result<Self, Failure> {
        let runtime = Self::runtime()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        runtime.spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            if let Err(error) =
                onelog_http::serve(node, sinks, HttpOptions::default(), listener, shutdown).await
            {
                eprintln!("the server ended: {error}");
            }
        });
        Ok(Self {
            address,
            runtime,
            stop,
        })
    }

    fn bare() -> Result<Self, Failure> {
        let runtime = Self::runtime()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let answer = || async {
            r#"{"id":"01900000-0000-7000-8000-000000000001","position":1,"offsets":[0]}"#
        };
        let router = Router::new().route(
            "/v1/transactions",
            post(move |_: axum::body::Bytes| answer()),
        );
        runtime.spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            let served = axum::serve(listener, router)
                .with_graceful_shutdown(shutdown)
                .await;
            if let Err(error) = served {
                eprintln!("the bare server ended: {error}");
            }
        });
        Ok(Self {
            address,
            runtime,
            stop,
        })
    }

    fn stop(self) {
        let _ = self.stop.send(());
        self.runtime.shutdown_timeout(Duration::from_secs(5));
    }
}

struct Load {
    rate: f64,
    latencies_ms: Vec<f64>,
}

fn load(address: SocketAddr, time: Duration) -> Result<Load, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let numbers = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let latencies_ms = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            tasks.spawn(client(address, Arc::clone(&stop), Arc::clone(&numbers)));
        }
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(result) = tasks.join_next().await {
            all.append(&mut result??);
        }
        Ok::<_, Failure>(all)
    })?;
    Ok(Load {
        rate: latencies_ms.len() as f64 / started.elapsed().as_secs_f64(),
        latencies_ms,
    })
}

async fn client(
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    numbers: Arc<AtomicU64>,
) -> Result<Vec<f64>, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut answer = Vec::with_capacity(4096);
    while !stop.load(Ordering::Relaxed) {
        let request = request(numbers.fetch_add(1, Ordering::Relaxed));
        let started = Instant::now();
        stream.write_all(&request).await?;
        read_answer(&mut stream, &mut answer).await?;
        latencies.push(started.elapsed().as_secs_f64() * 1e3);
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Err(
                format!("the server answered: {}", String::from_utf8_lossy(&answer)).into(),
            );
        }
    }
    Ok(latencies)
}

fn request(number: u64) -> Vec<u8> {
    let filler = "x".repeat(70);
    let key = number % 100_000;
    let body = format!(
        r#"{{"writes":[{{"op":"put","table":"bench.http","key":"key-{key}","value":{{"number":{number},"text":"{filler}"}}}}]}}"#
    );
    let length = body.len();
    format!("POST /v1/transactions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<(), Failure> {
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&answer[..head])?;
        let length = text
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")
                    .map(|n| n.trim().parse::<usize>())
            })
            .ok_or("the answer has no length")??;
        if answer.len() >= head + 4 + length {
            return Ok(());
        }
    }
}

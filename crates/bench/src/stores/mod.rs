//! The network stores catching up with a backlog, each beside a bare client loop on the same server
//! that does only the store's best bulk method and moves a position row.
//!
//! Every table and key that is made starts with `bench_onelog`; what is left of an earlier run is
//! replaced.

mod elasticsearch;
mod mysql;
mod postgres;
mod redis;

use std::time::{Duration, Instant};

use onelog::{CommitRequest, NewTable, Node, Operation, Position, TableId, Write};
use onelog_mapping::RowForm;
use onelog_sinks::{SinkDefinition, Sinks};
use onelog_stores::KINDS;
use serde_json::{Value, json};

use crate::Bench;
use crate::figures::{Figure, median, quantile};
use crate::load::Failure;
use postgres::Way;

const ROWS_PER_TRANSACTION: u64 = 100;
const ROWS_PER_SMALL_TRANSACTION: u64 = 10;
/// How long the small transactions are written.
const SMALL_TIME: Duration = Duration::from_secs(5);
/// How many of them are in flight.
const SMALL_IN_FLIGHT: usize = 64;
const SAMPLES: usize = 300;
const TIMEOUT: Duration = Duration::from_secs(600);
const TABLE: &str = "bench_onelog_orders";
const BARE_TABLE: &str = "bench_onelog_bare";

/// One row as every loop writes it.
pub(super) struct Order {
    pub(super) key: String,
    pub(super) customer: String,
    pub(super) total: f64,
    pub(super) note: String,
}

impl Order {
    /// The row of a number in one pass over `rows` rows, each key once, in scattered order.
    pub(super) fn new(number: u64, rows: u64, pass: u64) -> Self {
        Self {
            key: format!("order-{:08}", number.wrapping_mul(7919) % rows),
            customer: format!("customer-{}", number % 1000),
            total: (number + pass) as f64 + 0.5,
            note: "x".repeat(60),
        }
    }

    pub(super) fn document(&self) -> String {
        format!(
            r#"{{"customer":"{}","total":{},"note":"{}"}}"#,
            self.customer, self.total, self.note
        )
    }
}

/// A bare client loop.
pub(super) trait Bare {
    /// What it does, for the table of figures.
    fn name(&self) -> &'static str;
    /// Makes its table and writes every row once.
    fn prepare(&mut self, rows: u64) -> Result<(), Failure>;
    /// Writes every row once more; seconds.
    fn pass(&mut self, rows: u64, pass: u64) -> Result<f64, Failure>;
    /// Reads a whole table in the store's fastest way, throws it away; seconds. `None` where this
    /// is not compared.
    fn dump(&mut self, _table: &str) -> Result<Option<f64>, Failure> {
        Ok(None)
    }
    /// Removes what it made, and the rows that the deleted sink left.
    fn clean(&mut self) -> Result<(), Failure>;
}

type Connect = fn(&str) -> Result<Vec<Box<dyn Bare>>, Failure>;

/// A kind of store, and every way of writing into it in bulk that may be its fastest.
struct Ways {
    kind: &'static str,
    /// The products, for the table of figures.
    products: &'static str,
    connect: Connect,
}

const WAYS: &[Ways] = &[
    Ways {
        kind: "postgres",
        products: "PostgreSQL",
        connect: |url| {
            Ok(vec![
                Box::new(postgres::BarePostgres::connect(url, Way::CopyAndMerge)?),
                Box::new(postgres::BarePostgres::connect(url, Way::Unnest)?),
            ])
        },
    },
    Ways {
        kind: "mysql",
        products: "MariaDB or MySQL",
        connect: |url| Ok(vec![Box::new(mysql::BareMysql::connect(url)?)]),
    },
    Ways {
        kind: "redis",
        products: "Redis",
        connect: |url| Ok(vec![Box::new(redis::BareRedis::connect(url)?)]),
    },
    Ways {
        kind: "elasticsearch",
        products: "OpenSearch or Elasticsearch",
        connect: |url| {
            Ok(vec![Box::new(elasticsearch::BareElasticsearch::connect(
                url,
            )?)])
        },
    },
];

pub(super) struct Target {
    url: String,
    ways: &'static Ways,
    rows: RowForm,
}

impl Target {
    pub(super) fn new(url: &str) -> Result<Self, Failure> {
        let rules = KINDS.target(url)?.kind().rules();
        let ways = WAYS.iter().find(|ways| ways.kind == rules.kind);
        Ok(Self {
            url: url.to_owned(),
            ways: ways.ok_or_else(|| format!("there is no bare loop for {}", rules.kind))?,
            rows: rules.rows,
        })
    }

    fn bare(&self) -> Result<Vec<Box<dyn Bare>>, Failure> {
        (self.ways.connect)(&self.url)
    }

    fn definition(&self, name: &str) -> Result<SinkDefinition, Failure> {
        let mut mapping = json!({
            "table": "bench.orders", "into": TABLE,
            "columns": {
                "id": {"from": "$key", "type": "text"},
                "customer": {"from": "/customer", "type": "text"},
                "total": {"from": "/total", "type": "real"},
                "note": {"from": "/note", "type": "text"}
            }
        });
        // Where a row is a document, the document itself is what both sides write.
        if self.rows == RowForm::Document
            && let Some(mapping) = mapping.as_object_mut()
        {
            mapping.remove("columns");
        }
        let value: Value =
            json!({"name": name, "kind": self.ways.kind, "url": self.url, "mappings": [mapping]});
        Ok(SinkDefinition::from_json(KINDS, &value)?)
    }
}

/// All figures of one store.
pub(super) fn run(bench: &Bench, target: &Target, rows: u64) -> Result<Vec<Figure>, Failure> {
    let node = bench.open("stores")?;
    let table = node
        .create_table_blocking(NewTable::keyed("bench.orders"))?
        .0
        .id;
    let sinks = Sinks::start(node.clone(), KINDS)?;
    let mut bare = target.bare()?;
    for bare in &mut bare {
        bare.prepare(rows)?;
    }
    backlog(&node, table, rows, 0)?;
    let name = "onelog-bench";
    sinks.create(target.definition(name)?)?;
    sinks.wait_blocking(name, node.position(), TIMEOUT)?;
    let mut run = Run {
        bench,
        target,
        rows,
        node: &node,
        table,
        sinks: &sinks,
        name,
    };
    let mut figures = vec![run.catch_up(&mut bare)?];
    figures.push(run.small()?);
    figures.push(run.visible()?);
    figures.extend(run.verify(&mut bare)?);
    sinks.delete(name)?;
    sinks.stop();
    for bare in &mut bare {
        bare.clean()?;
    }
    bench.close(node, "stores")?;
    Ok(figures)
}

struct Run<'a> {
    bench: &'a Bench,
    target: &'a Target,
    rows: u64,
    node: &'a Node,
    table: TableId,
    sinks: &'a Sinks,
    name: &'a str,
}

impl Run<'_> {
    /// Rows per second over a backlog that was written while the sink stood still; each round of
    /// the sink is followed by one of every bare loop, and the fastest of these counts.
    fn catch_up(&mut self, bare: &mut [Box<dyn Bare>]) -> Result<Figure, Failure> {
        let (mut rates, mut bare_rates) = (Vec::new(), vec![Vec::new(); bare.len()]);
        for round in 0..self.bench.rounds as u64 {
            self.sinks.pause(self.name)?;
            let end = backlog(self.node, self.table, self.rows, round + 1)?;
            let started = Instant::now();
            self.sinks.resume(self.name)?;
            self.sinks.wait_blocking(self.name, end, TIMEOUT)?;
            rates.push(self.rows as f64 / started.elapsed().as_secs_f64());
            for (bare, rates) in bare.iter_mut().zip(&mut bare_rates) {
                rates.push(self.rows as f64 / bare.pass(self.rows, round + 1)?);
            }
        }
        let mut figure = Figure::new(
            format!("{}, catching up", self.target.ways.products),
            "rows/s",
            rates,
        );
        let mut note =
            "the sink also reads the log, parses the JSON and checks epoch and position".to_owned();
        let mut fastest = f64::MIN;
        for (bare, rates) in bare.iter().zip(&bare_rates) {
            let rate = median(rates);
            if rate > fastest {
                fastest = rate;
                figure = figure.beside(bare.name(), rates);
            }
            if bare_rates.len() > 1 {
                note.push_str(&format!("; {}: {rate:.0} rows/s", bare.name()));
            }
        }
        Ok(figure.note(note))
    }

    /// Rows per second while transactions of ten rows are committed as fast as they go, until the
    /// last one is in the store.
    fn small(&mut self) -> Result<Figure, Failure> {
        let mut rates = Vec::new();
        for round in 0..self.bench.rounds as u64 {
            let started = Instant::now();
            let mut written = 0;
            while started.elapsed() < SMALL_TIME {
                let tickets: Vec<_> = (0..SMALL_IN_FLIGHT as u64)
                    .map(|n| {
                        let from = written + n * ROWS_PER_SMALL_TRANSACTION;
                        self.node.submit(request(
                            self.table,
                            from..from + ROWS_PER_SMALL_TRANSACTION,
                            self.rows,
                            round + 100,
                        ))
                    })
                    .collect();
                for ticket in tickets {
                    ticket.wait()?;
                }
                written += SMALL_IN_FLIGHT as u64 * ROWS_PER_SMALL_TRANSACTION;
            }
            self.sinks
                .wait_blocking(self.name, self.node.position(), TIMEOUT)?;
            rates.push(written as f64 / started.elapsed().as_secs_f64());
        }
        Ok(Figure::new(
            format!("{}, transactions of 10 rows", self.target.ways.products),
            "rows/s",
            rates,
        ))
    }

    /// From the call of commit until the store shows it, nothing else going on.
    fn visible(&mut self) -> Result<Figure, Failure> {
        let mut medians = Vec::new();
        for round in 0..self.bench.rounds as u64 {
            let mut samples = Vec::with_capacity(SAMPLES);
            for n in 0..SAMPLES as u64 {
                let started = Instant::now();
                let ticket =
                    self.node
                        .submit(request(self.table, n..n + 1, self.rows, round + 200));
                let position = ticket.wait()?.position;
                self.sinks.wait_blocking(self.name, position, TIMEOUT)?;
                samples.push(started.elapsed().as_secs_f64() * 1000.0);
            }
            medians.push(quantile(&mut samples, 0.5));
        }
        Ok(Figure::new(
            format!(
                "{}, commit to visible, idle, median",
                self.target.ways.products
            ),
            "ms",
            medians,
        ))
    }

    /// Seconds to compare the store with the log, beside reading the store's table alone.
    fn verify(&mut self, bare: &mut [Box<dyn Bare>]) -> Result<Option<Figure>, Failure> {
        let (mut times, mut bare_times) = (Vec::new(), Vec::new());
        for _ in 0..self.bench.rounds {
            let started = Instant::now();
            let found = self.sinks.verify(self.name)?;
            times.push(started.elapsed().as_secs_f64());
            if !found.equal {
                return Err(format!("the store differs from the log: {found:?}").into());
            }
            if let Some(bare) = bare.first_mut() {
                bare_times.extend(bare.dump(TABLE)?);
            }
        }
        let figure = Figure::new(format!("{}, verify", self.target.ways.products), "s", times);
        Ok(Some(match bare_times.is_empty() {
            true => figure,
            false => figure.beside("reading the table alone", &bare_times),
        }))
    }
}

fn request(table: TableId, numbers: std::ops::Range<u64>, rows: u64, pass: u64) -> CommitRequest {
    let write = |number| {
        let order = Order::new(number, rows, pass);
        Write {
            table,
            operation: Operation::Put(order.document().into()),
            key: order.key.into(),
            headers: Vec::new(),
        }
    };
    CommitRequest {
        writes: numbers.map(write).collect(),
        ..CommitRequest::default()
    }
}

fn backlog(node: &Node, table: TableId, rows: u64, pass: u64) -> Result<Position, Failure> {
    let mut tickets = Vec::new();
    for from in (0..rows).step_by(ROWS_PER_TRANSACTION as usize) {
        let numbers = from..(from + ROWS_PER_TRANSACTION).min(rows);
        tickets.push(node.submit(request(table, numbers, rows, pass)));
        if tickets.len() == 32 {
            for ticket in tickets.drain(..) {
                ticket.wait()?;
            }
        }
    }
    for ticket in tickets {
        ticket.wait()?;
    }
    Ok(node.position())
}

//! The demonstration `onelog demo`: what two writes to two stores do, and what onelog does about it.
//!
//! All three parts are real races between real threads and processes; every number is counted from
//! the stores afterwards.

mod clients;
mod contention;
mod direct;
mod dual;
mod error;
mod follower;
mod interrupt;
mod real;
mod server;
mod store;
mod stores;
mod through;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onelog_client::Client;
use onelog_store::Target;
use onelog_terminal::{Out, Table, thousands};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

pub use direct::{STORE_CLIENTS, StoreClient};
pub use error::DemoError;
pub use follower::FOLLOW_COMMAND;
pub use real::Addresses;
pub use store::{FollowOptions, follow};

use clients::{CLIENTS, Delays, KEYS};
use follower::Follower;
use interrupt::{Interrupted, end_on_signal};
use real::Real;
use server::Server;

#[derive(Clone, Debug)]
pub struct Options {
    /// Stores to run the race on; on files of its own when none is given.
    pub addresses: Addresses,
    /// End after the three parts instead of serving on.
    pub exit: bool,
    /// Print JSON instead of text for people.
    pub json: bool,
    /// How long a client's request may take.
    pub timeout: Duration,
    /// Where the server listens; on a free port of the loopback where that is taken.
    pub listen: String,
}

/// What the three parts counted.
struct Outcome {
    dual: u64,
    through: through::Outcome,
    contention: contention::Outcome,
    seconds: f64,
}

/// Runs the demonstration. The running program must answer [`FOLLOW_COMMAND`] with [`follow`].
pub fn run(options: &Options) -> Result<(), DemoError> {
    let targets = options.addresses.targets()?;
    match targets.is_empty() {
        true => run_on_files(options),
        false => run_on_stores(options, targets),
    }
}

fn run_on_files(options: &Options) -> Result<(), DemoError> {
    let folder = temporary_folder()?;
    let runtime = runtime()?;
    let follower: Arc<Mutex<Option<Follower>>> = Arc::default();
    let victim = Arc::clone(&follower);
    let interrupted = end_on_signal(&runtime, folder.path(), move || *victim.lock() = None)?;
    let started = Instant::now();
    let tell = |text: &str| {
        if !options.json {
            eprintln!("{text}");
        }
    };

    tell(&format!(
        "1. {CLIENTS} clients write {KEYS} keys to two stores, each client to both …"
    ));
    let delays = Delays::random();
    let direct = subfolder(folder.path(), "direct")?;
    let dual = dual::run(&direct, &delays)?;

    tell("2. the same clients, the same delays, one write to onelog; one store is killed midway …");
    let followed = subfolder(folder.path(), "followed")?;
    let data = folder.path().join("onelog");
    let tables = [through::TABLE, contention::STOCK, contention::ORDERS];
    let server = Server::start(&data, &options.listen, &tables, &runtime)?;
    let client = Client::new(&server.url, options.timeout)?;
    let search = followed.join("search.db");
    let mut process = Follower::new(&server.url, &search, through::TABLE);
    let through = through::run(&followed, &server, &client, &mut process, &delays)?;
    *follower.lock() = Some(process);

    tell("3. buyers fight for the last pieces, stock and orders in one transaction …");
    let contention = contention::run(&server.node)?;
    let outcome = Outcome {
        dual,
        through,
        contention,
        seconds: started.elapsed().as_secs_f64(),
    };
    let mut out = Out::new();
    match options.json {
        true => out.json(&outcome.json(&server.url))?,
        false => outcome.print(&mut out)?,
    }
    if !options.exit {
        invite(&server, &followed, options.json, &mut out)?;
        out.flush()?;
        drop(out);
        interrupted.wait(&runtime);
    } else {
        out.flush()?;
    }
    // The follower first: it would otherwise look for the server.
    *follower.lock() = None;
    server.stop(&runtime)?;
    folder
        .close()
        .map_err(|error| DemoError::Failed(format!("cannot remove the temporary folder: {error}")))
}

/// The race on stores that are there. Part 3 needs none.
fn run_on_stores(options: &Options, targets: Vec<Arc<dyn Target>>) -> Result<(), DemoError> {
    let folder = temporary_folder()?;
    let real = Arc::new(Real::new(targets, folder.path())?);
    let runtime = runtime()?;
    let made = Arc::clone(&real);
    let interrupted = end_on_signal(&runtime, folder.path(), move || {
        // What cannot be taken away now stays; its name says what it is.
        let _ = made.clean();
    })?;
    let raced = race(options, &real, folder.path(), &runtime, &interrupted);
    let cleaned = real.clean();
    let mut outcome = raced?;
    outcome.left_behind = cleaned?;
    let mut out = Out::new();
    match options.json {
        true => out.json(&outcome.json())?,
        false => outcome.print_end(&mut out)?,
    }
    out.flush()?;
    folder
        .close()
        .map_err(|error| DemoError::Failed(format!("cannot remove the temporary folder: {error}")))
}

fn race(
    options: &Options,
    real: &Real,
    folder: &Path,
    runtime: &Runtime,
    interrupted: &Interrupted,
) -> Result<real::Outcome, DemoError> {
    let tell = |text: &str| {
        if !options.json {
            eprintln!("{text}");
        }
    };
    tell(&format!(
        "Everything that is made in these stores is named {}_… and is taken away at the end.",
        real.run()
    ));
    tell(&format!(
        "1. {CLIENTS} clients write {KEYS} keys, each client to each of: {} …",
        real.names()
    ));
    let delays = Delays::random();
    let direct = real.write_directly(&delays)?;
    tell("2. the same clients, the same delays, one write to onelog; the stores follow …");
    let server = Server::start(
        &folder.join("onelog"),
        &options.listen,
        &[through::TABLE],
        runtime,
    )?;
    let raced = (|| -> Result<real::Outcome, DemoError> {
        let client = Client::new(&server.url, options.timeout)?;
        let outcome = real.race(&server, &client, &delays, &direct)?;
        if !options.json {
            let mut out = Out::new();
            outcome.print(&mut out)?;
            if !options.exit {
                out.line(&format!(
                    "\nThe server goes on at {}, and the stores follow it. Ctrl-C ends everything.",
                    server.url
                ))?;
            }
            out.flush()?;
        }
        if !options.exit {
            interrupted.wait(runtime);
        }
        Ok(outcome)
    })();
    let ended = real.end_sinks(&server);
    let stopped = server.stop(runtime);
    let outcome = raced?;
    ended.and(stopped).map(|()| outcome)
}

/// The runtime of HTTP and of waiting.
fn runtime() -> Result<Runtime, DemoError> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("onelog-http")
        .build()
        .map_err(|error| DemoError::Failed(format!("cannot start threads: {error}")))
}

fn temporary_folder() -> Result<tempfile::TempDir, DemoError> {
    let folder = tempfile::Builder::new().prefix("onelog-demo-").tempdir();
    folder.map_err(|error| DemoError::Failed(format!("cannot make a temporary folder: {error}")))
}

fn subfolder(folder: &Path, name: &str) -> Result<std::path::PathBuf, DemoError> {
    let path = folder.join(name);
    std::fs::create_dir(&path).map_err(|source| DemoError::Write {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

impl Outcome {
    fn json(&self, url: &str) -> Value {
        json!({
            "two_writes_to_two_stores": {
                "keys": KEYS, "clients": CLIENTS, "differing_keys": self.dual,
            },
            "one_write_to_onelog": self.through,
            "two_tables_in_one_transaction": self.contention,
            "keys": KEYS,
            "seconds": self.seconds,
            "url": url,
        })
    }

    fn print(&self, out: &mut Out) -> std::io::Result<()> {
        let keys = thousands(KEYS as u64);
        let through = &self.through;
        let shop = &self.contention;
        out.line("")?;
        let mut table = Table::new(&["", "what was counted afterwards", ">count"]);
        let mut row = |part: &str, what: String, count: u64| {
            table.row([part.to_owned(), what, thousands(count)]);
        };
        row(
            "1. each client writes both stores",
            format!("keys of {keys} on which they differ for ever"),
            self.dual,
        );
        row(
            "2. clients write to onelog",
            format!("keys of {keys} on which the stores differ"),
            through.differing_keys,
        );
        row(
            "",
            "keys on which a store differs from the log".into(),
            through.differing_from_the_log,
        );
        row(
            "3. stock and orders, one transaction",
            "pieces sold that were not there".into(),
            shop.oversold,
        );
        row(
            "",
            "pieces taken without an order, or ordered without being taken".into(),
            shop.half_done,
        );
        row("", "confirmed orders that are missing".into(), shop.lost);
        table.print(out)?;
        out.line("")?;
        out.line("1. Both clients did everything right, nothing failed and nothing raised an error. The second")?;
        out.line("   store just got some writes in another order than the first, and no error will ever show it.")?;
        out.line(&format!(
            "2. The clients wrote once; both stores follow the one order of the log. The search index's process was\n   killed (-9) at position {} and started again when the log was at {}: it went on where its own\n   database said it was, and applied {} of {} records, each once.",
            thousands(through.killed_at_position),
            thousands(through.restarted_at_position),
            thousands(through.applied_by_killed_store),
            thousands(through.records),
        ))?;
        out.line(&format!(
            "3. {} buyers asked for {} pieces, there were {}. {} orders went through, {} were turned away; {} commits met\n   a faster one and were tried again. No locks were held.",
            shop.buyers,
            thousands(shop.pieces_wanted),
            thousands(shop.pieces),
            thousands(shop.orders),
            thousands(shop.turned_away),
            thousands(shop.conflicts),
        ))?;
        out.line(&format!("\nThat took {:.1} s.", self.seconds))
    }
}

/// What to try while the server goes on.
fn invite(server: &Server, folder: &Path, as_json: bool, out: &mut Out) -> std::io::Result<()> {
    if as_json {
        return Ok(());
    }
    let url = &server.url;
    out.line(&format!(
        "\nThe server goes on at {url}. Three things to try in another terminal:\n"
    ))?;
    out.line(&format!(
        "  curl -i {url}/v1/tables/{}/keys/item-0007",
        through::TABLE
    ))?;
    out.line(&format!(
        "  curl {url}/v1/transactions -d '{{\"guards\":[{{\"table\":\"{0}\",\"key\":\"item-0007\",\"exists\":true}}],\"writes\":[{{\"op\":\"put\",\"table\":\"{0}\",\"key\":\"item-0007\",\"value\":{{\"text\":\"a narwhal\"}}}}]}}'",
        through::TABLE
    ))?;
    out.line(&format!(
        "  curl -X POST {url}/v1/sinks/{}/verify",
        through::SINK
    ))?;
    out.line(&format!(
        "\nThe stores are SQLite files in {}. Ctrl-C ends everything.",
        folder.display()
    ))
}

//! Two clients that write the same keys at about the same time, with the same delays in every part.

use std::sync::Barrier;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rand::Rng;

use crate::error::DemoError;

/// How many keys both clients write.
pub const KEYS: usize = 1_000;
/// How many clients there are.
pub const CLIENTS: usize = 2;
/// The longest delay before a write: a network, a busy machine, a pause of a collector.
const DELAY_US_MAX: u64 = 1_500;

/// To how many stores one client writes, at most.
pub const STORES_MAX: usize = 5;

/// The delays of every client, key and write, thrown once and used in both parts.
pub struct Delays(Vec<Vec<[Duration; STORES_MAX]>>);

impl Delays {
    pub fn random() -> Self {
        let mut random = rand::rng();
        let mut throw = || Duration::from_micros(random.random_range(0..DELAY_US_MAX));
        let mut of_client = || {
            let mut delays = vec![[Duration::ZERO; STORES_MAX]; KEYS];
            delays
                .iter_mut()
                .flatten()
                .for_each(|delay| *delay = throw());
            delays
        };
        Self((0..CLIENTS).map(|_| of_client()).collect())
    }
}

/// The key with this number.
pub fn key(number: usize) -> String {
    format!("item-{number:04}")
}

/// What a client writes into a key.
pub fn text(client: usize, number: usize) -> String {
    let name = ["Alice", "Bob"][client % 2];
    format!("{name} was here last, at item {number}")
}

/// One client's writes of a key, one after the other, to one store after the other. Where there is
/// one place to write to, all but the first do nothing.
pub trait Writes: Send {
    /// How many stores there are.
    fn stores(&self) -> usize;
    /// Writes a key to the store with this number.
    fn write(&mut self, store: usize, key: &str, text: &str) -> Result<(), DemoError>;
}

/// Runs the clients. They take up each key together, as two requests for one key that arrive at
/// the same time; from there on nothing holds them. The number of each key that is begun goes to
/// `progress`.
pub fn run(
    clients: Vec<Box<dyn Writes>>,
    delays: &Delays,
    progress: Option<Sender<usize>>,
) -> Result<(), DemoError> {
    let together = Barrier::new(clients.len());
    let mut progress = progress;
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .into_iter()
            .zip(&delays.0)
            .enumerate()
            .map(|(number, (writes, delays))| {
                let progress = progress.take();
                let together = &together;
                scope.spawn(move || run_one(number, writes, delays, together, progress.as_ref()))
            })
            .collect();
        running.into_iter().try_for_each(|client| {
            client
                .join()
                .unwrap_or_else(|_| Err(DemoError::Failed("a client has ended early".to_owned())))
        })
    })
}

fn run_one(
    client: usize,
    mut writes: Box<dyn Writes>,
    delays: &[[Duration; STORES_MAX]],
    together: &Barrier,
    progress: Option<&Sender<usize>>,
) -> Result<(), DemoError> {
    let mut result = Ok(());
    for (number, delay) in delays.iter().enumerate() {
        together.wait();
        if let Some(progress) = progress {
            // The receiver is gone once both kill and restart are done.
            let _ = progress.send(number);
        }
        // After an error a client goes on meeting the other one, so that it is not left waiting.
        if result.is_ok() {
            let (key, text) = (key(number), text(client, number));
            for (store, delay) in delay.iter().enumerate().take(writes.stores()) {
                thread::sleep(*delay);
                result = result.and_then(|()| writes.write(store, &key, &text));
            }
        }
    }
    result
}

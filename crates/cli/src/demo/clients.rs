//! Two clients that write the same keys at about the same time, with the same delays in every part.

use std::sync::Barrier;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rand::Rng;

use crate::error::CommandError;

/// How many keys both clients write.
pub const KEYS: usize = 1_000;
/// How many clients there are.
pub const CLIENTS: usize = 2;
/// The longest delay before a write: a network, a busy machine, a pause of a collector.
const DELAY_US_MAX: u64 = 1_500;

/// The delays of every client, key and write, thrown once and used in both parts.
pub struct Delays(Vec<[[Duration; 2]; KEYS]>);

impl Delays {
    /// Throws them.
    pub fn random() -> Self {
        let mut random = rand::rng();
        let mut throw = || Duration::from_micros(random.random_range(0..DELAY_US_MAX));
        let mut of_client = || {
            let mut delays = [[Duration::ZERO; 2]; KEYS];
            for delay in &mut delays {
                *delay = [throw(), throw()];
            }
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

/// One client's two writes. Where there is one store to write to, the second does nothing.
pub trait Writes: Send {
    fn first(&mut self, key: &str, text: &str) -> Result<(), CommandError>;
    fn second(&mut self, key: &str, text: &str) -> Result<(), CommandError>;
}

/// Runs the clients. They take up each key together, as two requests for one key that arrive at
/// the same time; from there on nothing holds them. The number of each key that is begun goes to
/// `progress`.
pub fn run(
    clients: Vec<Box<dyn Writes>>,
    delays: &Delays,
    progress: Option<Sender<usize>>,
) -> Result<(), CommandError> {
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
            client.join().unwrap_or_else(|_| {
                Err(CommandError::Failed("a client has ended early".to_owned()))
            })
        })
    })
}

fn run_one(
    client: usize,
    mut writes: Box<dyn Writes>,
    delays: &[[Duration; 2]; KEYS],
    together: &Barrier,
    progress: Option<&Sender<usize>>,
) -> Result<(), CommandError> {
    let mut result = Ok(());
    for (number, delay) in delays.iter().enumerate() {
        together.wait();
        if let Some(progress) = progress {
            // Nobody listens any more once both kill and restart are done.
            let _ = progress.send(number);
        }
        // After an error a client goes on meeting the other one, so that it is not left waiting.
        if result.is_ok() {
            let (key, text) = (key(number), text(client, number));
            thread::sleep(delay[0]);
            result = writes.first(&key, &text);
            thread::sleep(delay[1]);
            result = result.and_then(|()| writes.second(&key, &text));
        }
    }
    result
}

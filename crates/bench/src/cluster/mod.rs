//! Three nodes, each in a process of its own, on one machine: what replication costs, how fast a new node
//! has everything, how long nothing is committed when the leader fails.

mod cores;
pub mod member;
mod order;
mod rig;

use std::time::Instant;

use onelog::Position;
use rustix::process::{Pid, Signal, kill_process};

use self::cores::{Cores, keep_to};
use self::order::{Answer, Loaded, Order};
use self::rig::{Cluster, Member, start, unexpected};
use crate::figures::{Figure, median};
use crate::load::{Failure, Shape};
use crate::{Bench, bare};

const VOTERS: usize = 3;
const IN_FLIGHT: usize = 256;
const READS: usize = 2;
const WRITES: usize = 2;
const ONE_CLIENT_COMMITS: u64 = 1_000;
/// The load beside a new node that catches up goes on for so long, again and again.
const SLICE_MS: u64 = 500;

pub fn run(bench: &Bench) -> Result<Vec<Figure>, Failure> {
    let mut alone = Member::start(&start(bench, "alone"))?;
    alone.carry_out(&Order::Fill { keys: bench.keys })?;
    let mut cluster = Cluster::of_one(bench)?;
    while cluster.members.len() < VOTERS {
        cluster.join()?;
    }
    eprintln!("  three nodes have each other");
    let mut figures = commits(bench, &mut alone, &mut cluster)?;
    alone.stop()?;
    eprintln!("  new nodes catch up");
    figures.extend(catching_up(bench, &mut cluster)?);
    figures.push(failover(
        bench,
        &mut cluster,
        "the leader is killed, until the next commit",
        killed,
    )?);
    figures.push(failover(
        bench,
        &mut cluster,
        "the leader hangs, until the next commit",
        hung,
    )?);
    cluster.stop()?;
    Ok(figures)
}

fn shape(bench: &Bench) -> Shape {
    Shape {
        reads: READS,
        writes: WRITES,
        keys: bench.keys,
    }
}

fn load(bench: &Bench, member: &mut Member, time_ms: u64) -> Result<Loaded, Failure> {
    let order = Order::Load {
        shape: shape(bench),
        in_flight: IN_FLIGHT,
        time_ms,
    };
    match member.order(&order)? {
        Answer::Loaded(loaded) => Ok(loaded),
        other => Err(unexpected(&other)),
    }
}

fn one_client(member: &mut Member) -> Result<f64, Failure> {
    let commits = ONE_CLIENT_COMMITS;
    match member.order(&Order::OneClient { commits })? {
        Answer::Median { ms } => Ok(ms),
        other => Err(unexpected(&other)),
    }
}

/// Throughput and latency on the leader, beside a node that is alone and bare flushes.
fn commits(
    bench: &Bench,
    alone: &mut Member,
    cluster: &mut Cluster<'_>,
) -> Result<Vec<Figure>, Failure> {
    let time_ms = bench.round.as_millis() as u64;
    let (mut rates, mut bare_rates, mut alone_rates) = (Vec::new(), Vec::new(), Vec::new());
    let (mut medians, mut tails, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    let (mut latencies, mut alone_latencies) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        alone_rates.push(load(bench, alone, time_ms)?.rate);
        alone_latencies.push(one_client(alone)?);
        let leader = cluster.settled_leader()?;
        let loaded = load(bench, cluster.at(leader)?, time_ms)?;
        let group_bytes = loaded.group_bytes as usize;
        let flushes = bare::flushes(&bench.folder, bench.flushes, group_bytes, bench.round / 3)?;
        rates.push(loaded.rate);
        bare_rates.push(flushes * loaded.group_transactions);
        groups.push(loaded.group_transactions);
        medians.push(loaded.median_ms);
        tails.push(loaded.p99_ms);
        let leader = cluster.settled_leader()?;
        latencies.push(one_client(cluster.at(leader)?)?);
    }
    Ok(vec![
        Figure::new(
            "three nodes, commits, 256 in flight, 2 reads + 2 writes of 100 B",
            "transactions/s",
            rates.clone(),
        )
        .beside("flushes of groups of the same size on one disk", &bare_rates)
        .note(format!(
            "{:.0} transactions a group; the three nodes, and the clients in the leader's process, share the cores and the disk",
            median(&groups)
        )),
        Figure::new("the same beside a single node", "transactions/s", rates)
            .beside("the same load on a node that is alone", &alone_rates),
        Figure::new("three nodes, their latency, median", "ms", medians),
        Figure::new("three nodes, their latency, p99", "ms", tails),
        Figure::new("three nodes, commit, one client, median", "ms", latencies)
            .beside("a node that is alone", &alone_latencies),
    ])
}

/// How fast a new node gets the log, while nothing else happens and under load; and what the load
/// notices.
fn catching_up(bench: &Bench, cluster: &mut Cluster<'_>) -> Result<Vec<Figure>, Failure> {
    let (mut stored, mut idle, mut replayed) = (Vec::new(), Vec::new(), Vec::new());
    let (mut sharing, mut apart) = (UnderLoad::default(), UnderLoad::default());
    let cores = Cores::here()?;
    for _ in 0..bench.rounds.min(3) {
        let (newcomer, megabytes) = new_follower(cluster)?;
        let mut followed = Followed::begin(newcomer, cluster)?;
        stored.push(megabytes / followed.stored(cluster)?);
        idle.push(megabytes / followed.reached()?);
        replayed.push(megabytes / followed.replayed(cluster)?);
        followed.end(cluster)?;
        sharing.measure(bench, cluster, None)?;
        if let Some(cores) = &cores {
            apart.measure(bench, cluster, Some(cores))?;
        }
    }
    let mut figures = vec![
        Figure::new("a new node storing what it lacks", "MB/s", stored)
            .note("bytes of the log, by the time until all of them are durable there"),
        Figure::new("a new node catching up", "MB/s", idle)
            .beside(
                "the same node replaying the same log from its disk",
                &replayed,
            )
            .note("bytes of the log, by the time until all of them are applied there"),
    ];
    figures.extend(sharing.figures(
        "a new node catching up, under that load",
        "the load meanwhile",
    ));
    if cores.is_some() {
        figures.extend(apart.figures(
            "a new node catching up, under that load, on a core of its own",
            "the load meanwhile, on the other cores",
        ));
    }
    Ok(figures)
}

/// New nodes that catch up while a load goes on.
#[derive(Default)]
struct UnderLoad {
    speeds: Vec<f64>,
    beside: Vec<f64>,
    undisturbed: Vec<f64>,
}

impl UnderLoad {
    /// One more. With cores, the new node has the last of them and the others have the rest, also for
    /// the load without it.
    fn measure(
        &mut self,
        bench: &Bench,
        cluster: &mut Cluster<'_>,
        cores: Option<&Cores>,
    ) -> Result<(), Failure> {
        let leader = cluster.settled_leader()?;
        if let Some(cores) = cores {
            cluster.keep_to(cores.all_but_the_last())?;
        }
        let undisturbed = load(bench, cluster.at(leader)?, SLICE_MS * 4)?;
        self.undisturbed.push(undisturbed.rate);
        let (newcomer, megabytes) = new_follower(cluster)?;
        if let Some(cores) = cores {
            keep_to(cores.last(), &newcomer)?;
        }
        let mut followed = Followed::begin(newcomer, cluster)?;
        let (seconds, rate) = followed.reached_under_load(bench, cluster)?;
        if let Some(cores) = cores {
            cluster.keep_to(cores.all())?;
        }
        followed.end(cluster)?;
        self.speeds.push(megabytes / seconds);
        self.beside.push(rate);
        Ok(())
    }

    fn figures(self, speed: &'static str, beside: &'static str) -> [Figure; 2] {
        [
            Figure::new(speed, "MB/s", self.speeds),
            Figure::new(beside, "transactions/s", self.beside)
                .beside("without a new node", &self.undisturbed),
        ]
    }
}

/// A node that waits to be added, and how much log it lacks, in MB.
fn new_follower(cluster: &mut Cluster<'_>) -> Result<(Member, f64), Failure> {
    let leader = cluster.settled_leader()?;
    let (_, bytes) = cluster.at(leader)?.place()?;
    Ok((cluster.start_new()?, bytes as f64 / 1e6))
}

/// A node that was added and has not everything yet.
struct Followed {
    newcomer: Member,
    leader: u64,
    /// Where the log ended before.
    position: Position,
    added: Instant,
}

impl Followed {
    fn begin(mut newcomer: Member, cluster: &mut Cluster<'_>) -> Result<Self, Failure> {
        let leader = cluster.settled_leader()?;
        let (position, _) = cluster.at(leader)?.place()?;
        let (number, address) = (newcomer.number, newcomer.address.clone());
        let added = Instant::now();
        cluster
            .at(leader)?
            .carry_out(&Order::Add { number, address })?;
        newcomer.send(&Order::Reach { position })?;
        Ok(Self {
            newcomer,
            leader,
            position,
            added,
        })
    }

    /// The seconds until it has stored everything from before, durably.
    fn stored(&self, cluster: &mut Cluster<'_>) -> Result<f64, Failure> {
        let number = self.newcomer.number;
        cluster
            .at(self.leader)?
            .carry_out(&Order::Stored { number })?;
        Ok(self.added.elapsed().as_secs_f64())
    }

    /// The seconds until it has applied everything from before.
    fn reached(&mut self) -> Result<f64, Failure> {
        let reached = self.newcomer.answer()?;
        self.is_there(&reached)
    }

    fn is_there(&self, reached: &Answer) -> Result<f64, Failure> {
        match reached {
            Answer::Done => Ok(self.added.elapsed().as_secs_f64()),
            other => Err(unexpected(other)),
        }
    }

    /// The same seconds with a load on the leader, and the rate of that.
    fn reached_under_load(
        &mut self,
        bench: &Bench,
        cluster: &mut Cluster<'_>,
    ) -> Result<(f64, f64), Failure> {
        let mut rates = Vec::new();
        loop {
            let loaded = load(bench, cluster.at(self.leader)?, SLICE_MS)?;
            if let Some(reached) = self.newcomer.answer_if_any()? {
                // This slice went on longer.
                if rates.is_empty() {
                    rates.push(loaded.rate);
                }
                return Ok((self.is_there(&reached)?, median(&rates)));
            }
            rates.push(loaded.rate);
        }
    }

    /// The seconds that it takes to make its state anew from its own log.
    fn replayed(&mut self, cluster: &Cluster<'_>) -> Result<f64, Failure> {
        self.newcomer.carry_out(&Order::Stop)?;
        self.newcomer.kill()?;
        std::fs::remove_dir_all(self.newcomer.folder.join("state"))?;
        let started = Instant::now();
        self.newcomer = cluster.started_again(&self.newcomer)?;
        let position = self.position;
        self.newcomer.carry_out(&Order::Reach { position })?;
        Ok(started.elapsed().as_secs_f64())
    }

    fn end(mut self, cluster: &mut Cluster<'_>) -> Result<(), Failure> {
        let number = self.newcomer.number;
        let leader = cluster.settled_leader()?;
        cluster.at(leader)?.carry_out(&Order::Remove { number })?;
        self.newcomer.kill()?;
        Ok(std::fs::remove_dir_all(&self.newcomer.folder)?)
    }
}

/// The seconds from a fault of the leader until a client on another node has its next commit.
fn failover(
    bench: &Bench,
    cluster: &mut Cluster<'_>,
    name: &'static str,
    fault: fn(&mut Cluster<'_>, u64) -> Result<f64, Failure>,
) -> Result<Figure, Failure> {
    eprintln!("  {name}");
    let mut seconds = Vec::new();
    for _ in 0..bench.rounds {
        let leader = cluster.settled_leader()?;
        seconds.push(fault(cluster, leader)?);
    }
    Ok(Figure::new(name, "s", seconds))
}

fn next_commit(cluster: &mut Cluster<'_>, since: Instant) -> Result<f64, Failure> {
    cluster.members[0].carry_out(&Order::Commit)?;
    Ok(since.elapsed().as_secs_f64())
}

fn killed(cluster: &mut Cluster<'_>, leader: u64) -> Result<f64, Failure> {
    let mut member = cluster.take(leader)?;
    let since = member.kill()?;
    let seconds = next_commit(cluster, since)?;
    cluster.restart(&member)?;
    Ok(seconds)
}

fn hung(cluster: &mut Cluster<'_>, leader: u64) -> Result<f64, Failure> {
    let member = cluster.take(leader)?;
    let signal = |signal| {
        let process = i32::try_from(member.pid()).ok().and_then(Pid::from_raw);
        kill_process(process.ok_or("the process has no number")?, signal).map_err(Failure::from)
    };
    let since = Instant::now();
    signal(Signal::STOP)?;
    let seconds = next_commit(cluster, since);
    signal(Signal::CONT)?;
    cluster.members.push(member);
    seconds
}

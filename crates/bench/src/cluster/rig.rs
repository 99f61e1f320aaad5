//! The nodes' processes as the one that measures sees them.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Instant;

use onelog::Position;

use super::cores::keep_to;
use super::member::PATIENCE;
use super::order::{Answer, Order, Start};
use crate::Bench;
use crate::load::Failure;

/// A process that is one node of the cluster, or alone.
pub struct Member {
    pub number: u64,
    /// Where other nodes reach it; empty where it is alone.
    pub address: String,
    pub folder: PathBuf,
    process: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Member {
    pub fn start(start: &Start) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--member")
            .arg(serde_json::to_string(start)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take().ok_or("the child has no input")?;
        let out = process.stdout.take().ok_or("the child has no output")?;
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines();
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let mut member = Self {
            number: start.number.unwrap_or(0),
            address: String::new(),
            folder: start.folder.clone(),
            process,
            orders,
            answers,
        };
        match member.answer()? {
            Answer::Started { address } => member.address = address.unwrap_or_default(),
            other => return Err(unexpected(&other)),
        }
        Ok(member)
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends an order without waiting for its answer.
    pub fn send(&mut self, order: &Order) -> Result<(), Failure> {
        writeln!(self.orders, "{}", serde_json::to_string(order)?)?;
        Ok(self.orders.flush()?)
    }

    pub fn answer(&mut self) -> Result<Answer, Failure> {
        let line = self.answers.recv_timeout(PATIENCE * 2);
        let line = line.map_err(|_| format!("node {} does not answer", self.number))?;
        self.read(&line)
    }

    /// The answer, where it is there.
    pub fn answer_if_any(&mut self) -> Result<Option<Answer>, Failure> {
        match self.answers.try_recv() {
            Ok(line) => self.read(&line).map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(format!("node {} ended", self.number).into()),
        }
    }

    fn read(&self, line: &str) -> Result<Answer, Failure> {
        match serde_json::from_str(line)? {
            Answer::Failed { what } => Err(format!("node {}: {what}", self.number).into()),
            answer => Ok(answer),
        }
    }

    pub fn order(&mut self, order: &Order) -> Result<Answer, Failure> {
        self.send(order)?;
        self.answer()
    }

    /// An order that is answered by nothing but its end.
    pub fn carry_out(&mut self, order: &Order) -> Result<(), Failure> {
        match self.order(order)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Position and bytes of the log.
    pub fn place(&mut self) -> Result<(Position, u64), Failure> {
        match self.order(&Order::Where)? {
            Answer::At {
                position,
                log_bytes,
            } => Ok((position, log_bytes)),
            other => Err(unexpected(&other)),
        }
    }

    pub fn stop(mut self) -> Result<(), Failure> {
        self.carry_out(&Order::Stop)?;
        self.process.wait()?;
        Ok(())
    }

    /// Ends the process at once.
    pub fn kill(&mut self) -> Result<Instant, Failure> {
        let at = Instant::now();
        self.process.kill()?;
        self.process.wait()?;
        Ok(at)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn unexpected(answer: &Answer) -> Failure {
    format!("not the answer that was expected: {answer:?}").into()
}

/// Nodes that have each other.
pub struct Cluster<'b> {
    bench: &'b Bench,
    pub members: Vec<Member>,
    next: u64,
}

impl<'b> Cluster<'b> {
    /// Node 1, with a table that is filled.
    pub fn of_one(bench: &'b Bench) -> Result<Self, Failure> {
        let mut cluster = Self {
            bench,
            members: Vec::new(),
            next: 1,
        };
        let mut first = cluster.start_new()?;
        first.carry_out(&Order::Fill { keys: bench.keys })?;
        cluster.members.push(first);
        Ok(cluster)
    }

    /// A node that is no member yet.
    pub fn start_new(&mut self) -> Result<Member, Failure> {
        let number = self.next;
        self.next += 1;
        self.start(number, None)
    }

    fn start(&self, number: u64, listen: Option<SocketAddr>) -> Result<Member, Failure> {
        let peers = self.members.iter();
        let mut start = start(self.bench, &format!("node-{number}"));
        start.number = Some(number);
        start.listen = listen;
        start.peers = peers.map(|m| (m.number, m.address.clone())).collect();
        Member::start(&start)
    }

    /// A new node joins, and votes.
    pub fn join(&mut self) -> Result<(), Failure> {
        let member = self.start_new()?;
        let (number, address) = (member.number, member.address.clone());
        self.members[0].carry_out(&Order::Add { number, address })?;
        self.members.push(member);
        let (position, _) = self.members[0].place()?;
        self.at(number)?.carry_out(&Order::Reach { position })?;
        self.members[0].carry_out(&Order::Promote { number })
    }

    pub fn at(&mut self, number: u64) -> Result<&mut Member, Failure> {
        let mut members = self.members.iter_mut();
        let found = members.find(|member| member.number == number);
        found.ok_or_else(|| format!("node {number} does not run").into())
    }

    pub fn take(&mut self, number: u64) -> Result<Member, Failure> {
        let mut members = self.members.iter();
        let found = members.position(|member| member.number == number);
        let at = found.ok_or_else(|| format!("node {number} does not run"))?;
        Ok(self.members.remove(at))
    }

    /// A node that was ended starts with what it had, where it was.
    pub fn restart(&mut self, ended: &Member) -> Result<(), Failure> {
        let member = self.started_again(ended)?;
        self.members.push(member);
        Ok(())
    }

    pub fn started_again(&self, ended: &Member) -> Result<Member, Failure> {
        self.start(ended.number, Some(ended.address.parse()?))
    }

    /// The node that leads, once all follow it and have everything.
    pub fn settled_leader(&mut self) -> Result<u64, Failure> {
        let leader = loop {
            let leader = self.members[0].leader(None)?;
            if self.at(leader)?.leader(None)? == leader {
                break leader;
            }
        };
        let (position, _) = self.at(leader)?.place()?;
        for member in &mut self.members {
            member.carry_out(&Order::Reach { position })?;
        }
        Ok(leader)
    }

    /// Has all members run on these cores.
    pub fn keep_to(&self, cores: &[usize]) -> Result<(), Failure> {
        self.members
            .iter()
            .try_for_each(|member| keep_to(cores, member))
    }

    pub fn stop(mut self) -> Result<(), Failure> {
        while let Some(member) = self.members.pop() {
            member.stop()?;
        }
        Ok(())
    }
}

impl Member {
    /// Who leads, as soon as another than this does.
    pub fn leader(&mut self, other_than: Option<u64>) -> Result<u64, Failure> {
        match self.order(&Order::Leader { other_than })? {
            Answer::Leader { number } => Ok(number),
            other => Err(unexpected(&other)),
        }
    }
}

/// How a node that is alone is started.
pub fn start(bench: &Bench, name: &str) -> Start {
    Start {
        folder: bench.folder.join(name),
        cache_bytes: bench.cache_bytes,
        flushes: bench.flushes,
        memtable_bytes: bench.memtable_bytes,
        number: None,
        listen: None,
        peers: Vec::new(),
    }
}

//! A node in a process of its own: carries out orders that come by lines, until there are no more.

use std::fmt::Display;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use onelog::{ClusterStatus, Node, NodeId, Position, TableId};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::order::{Answer, Loaded, Order, Start};
use crate::commits::histogram;
use crate::figures::quantile;
use crate::load::{self, Failure};

const TABLE: &str = "bench.cluster";
/// How long something may take that must happen.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Serves standard input.
pub fn run(start: &str) -> Result<(), Failure> {
    let start: Start = serde_json::from_str(start)?;
    let node = start.open()?;
    let address = node.peer_address().map(|address| address.to_string());
    answer(&Answer::Started { address })?;
    let mut member = Member {
        node,
        random: SmallRng::seed_from_u64(start.number.unwrap_or(0)),
    };
    for line in std::io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let is_last = matches!(order, Order::Stop);
        let done = member.carry_out(order);
        answer(&done.unwrap_or_else(|failure| Answer::Failed {
            what: failure.to_string(),
        }))?;
        if is_last {
            return Ok(());
        }
    }
    // The process that gave the orders has ended.
    Ok(member.node.stop()?)
}

fn answer(answer: &Answer) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    Ok(out.flush()?)
}

struct Member {
    node: Node,
    random: SmallRng,
}

impl Member {
    fn table(&self) -> Result<TableId, Failure> {
        let table = self.node.catalog().by_name(TABLE).map(|table| table.id);
        table.ok_or_else(|| "there is no table yet".into())
    }

    fn carry_out(&mut self, order: Order) -> Result<Answer, Failure> {
        match order {
            Order::Fill { keys } => {
                let table = load::table(&self.node, TABLE)?;
                load::fill(&self.node, table, keys)?;
            }
            Order::Load {
                shape,
                in_flight,
                time_ms,
            } => return Ok(Answer::Loaded(self.load(shape, in_flight, time_ms)?)),
            Order::OneClient { commits } => {
                let ms = self.one_client(commits)?;
                return Ok(Answer::Median { ms });
            }
            Order::Add { number, address } => {
                self.node.add_member_blocking(NodeId(number), address)?;
            }
            Order::Promote { number } => self.node.promote_member_blocking(NodeId(number))?,
            Order::Remove { number } => self.node.remove_member_blocking(NodeId(number))?,
            Order::Commit => self.commit_at_last()?,
            Order::Reach { position } => {
                let reached = self.node.wait_for_blocking(position, PATIENCE);
                reached.map_err(|error| self.failed(&error))?;
            }
            Order::Stored { number } => self.stored(number)?,
            Order::Where => {
                return Ok(Answer::At {
                    position: self.node.position(),
                    log_bytes: self.node.log_bytes_from(Position(0)),
                });
            }
            Order::Leader { other_than } => {
                let number = self.leader(other_than)?;
                return Ok(Answer::Leader { number });
            }
            Order::Stop => self.node.stop()?,
        }
        Ok(Answer::Done)
    }

    fn failed(&self, error: &impl Display) -> String {
        format!("{error}: {:?}", self.node.cluster())
    }

    fn load(&self, shape: load::Shape, in_flight: usize, time_ms: u64) -> Result<Loaded, Failure> {
        let figures = |name| histogram(&self.node, name);
        let (transactions_before, groups_before) = figures("group_transactions");
        let (bytes_before, _) = figures("group_bytes");
        let time = Duration::from_millis(time_ms);
        let mut load = load::run(&self.node, self.table()?, shape, in_flight, time)?;
        let (transactions, groups) = figures("group_transactions");
        let (bytes, _) = figures("group_bytes");
        let groups = (groups - groups_before).max(1.0);
        Ok(Loaded {
            rate: load.rate(),
            median_ms: quantile(&mut load.latencies_ms, 0.5),
            p99_ms: quantile(&mut load.latencies_ms, 0.99),
            group_transactions: (transactions - transactions_before) / groups,
            group_bytes: (bytes - bytes_before) / groups,
        })
    }

    fn put(&mut self, number: u64) -> Result<onelog::CommitRequest, Failure> {
        let (key, value) = (load::key(number), load::value(&mut self.random));
        Ok(onelog::CommitRequest {
            writes: vec![load::put(self.table()?, key, value)],
            ..onelog::CommitRequest::default()
        })
    }

    fn one_client(&mut self, commits: u64) -> Result<f64, Failure> {
        let mut latencies = Vec::new();
        for number in 0..commits {
            let request = self.put(number)?;
            let started = Instant::now();
            self.node.submit(request).wait()?;
            latencies.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(quantile(&mut latencies, 0.5))
    }

    fn commit_at_last(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            let request = self.put(0)?;
            match self.node.submit(request).wait() {
                Ok(_) => return Ok(()),
                Err(refusal) if started.elapsed() > PATIENCE => {
                    return Err(self.failed(&refusal).into());
                }
                Err(_) => {}
            }
        }
    }

    fn stored(&self, number: u64) -> Result<(), Failure> {
        let matched = |status: &ClusterStatus, is_one: &dyn Fn(u64) -> bool| {
            let members = status.members.iter().filter(|member| is_one(member.node));
            members.filter_map(|member| member.matched).max()
        };
        let status = self.node.cluster().ok_or("the node is alone")?;
        let others = matched(&status, &|node| node != number);
        let has_all = |status: &ClusterStatus| matched(status, &|node| node == number) >= others;
        let waited = self.node.wait_for_cluster(PATIENCE, has_all);
        waited.map_err(|error| self.failed(&error))?;
        Ok(())
    }

    fn leader(&self, other_than: Option<u64>) -> Result<u64, Failure> {
        let is_settled = |status: &ClusterStatus| {
            let others = status.members.iter().filter(|m| m.node != status.node);
            let mut others = others.filter(|m| Some(m.node) != other_than);
            let all_follow = others.all(|m| m.is_connected && m.is_active == Some(true));
            let leader = status.leader.filter(|leader| Some(*leader) != other_than);
            leader.is_some() && (!status.leads || all_follow)
        };
        let settled = self.node.wait_for_cluster(PATIENCE, is_settled);
        let status = settled.map_err(|error| self.failed(&error))?;
        status.leader.ok_or_else(|| "no node leads".into())
    }
}

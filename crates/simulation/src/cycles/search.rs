//! The search for cycles: the strongest kind first, each as short as it can be.
//!
//! Every component of the graph holds a cycle, so an anomaly is found in linear time; which kind it is
//! takes a search from each edge that is special for the kind, bounded by a budget. A component is
//! reported once, by the strongest kind: what else is in it may follow from that.

use std::collections::HashMap;

use super::anomaly::{Anomalies, Kind};
use super::graph::{DATA, Edge, Graph, Kinds, RW, TIME, WR, WW, Ways, Why};
use super::readings::Readings;
use super::transaction::Value;
use super::versions::Versions;
use super::writes::{KeyId, Writes};

/// How many edges the searches for the shortest cycle of one component look at; what was found by
/// then is reported.
const LOOKED_AT_MAX: u64 = 4_000_000;

pub(super) struct Search<'s, 'h> {
    pub writes: &'s Writes<'h>,
    pub graph: &'s Graph,
    pub anomalies: &'s mut Anomalies,
    /// Whether a node belongs to an anomaly that was found.
    pub is_explained: Vec<bool>,
}

/// A way to look for a cycle: through an edge of these kinds, and back over edges of those.
type Pass = (Kinds, Kinds);

const WRITE_CYCLE: &[Pass] = &[(WW, WW)];
const FLOW: &[Pass] = &[(WR, WW | WR)];
const SKEW: &[Pass] = &[(RW, WW | WR), (RW, DATA)];
const TIMED: &[Pass] = &[
    (TIME, WW | WR | TIME),
    (RW, WW | WR | TIME),
    (TIME, DATA | TIME),
];

impl Search<'_, '_> {
    /// Transactions that read the same version and wrote it, then all cycles.
    pub(super) fn run(&mut self, readings: &Readings<'_>, versions: &Versions) {
        self.components(WW, WRITE_CYCLE);
        self.components(WW | WR, FLOW);
        self.lost_updates(readings, versions);
        self.components(DATA, SKEW);
        self.components(DATA | TIME, TIMED);
    }

    fn lost_updates(&mut self, readings: &Readings<'_>, versions: &Versions) {
        let mut groups: HashMap<(KeyId, Option<Value>), Vec<u32>> = HashMap::new();
        let readings = readings.all.iter().enumerate();
        for (_, reading) in readings
            .filter(|(place, reading)| reading.is_updated && !versions.contradicted.contains(place))
        {
            let version = (reading.key, reading.version());
            groups.entry(version).or_default().push(reading.reader);
        }
        let mut groups: Vec<_> = groups.into_iter().filter(|(_, g)| g.len() > 1).collect();
        groups.sort();
        for ((key, version), members) in groups {
            for member in &members {
                self.is_explained[*member as usize] = true;
            }
            let list = self.writes.key_name(key);
            let (one, other) = (self.writes.name(members[0]), self.writes.name(members[1]));
            let mut summary = format!("{one} -[rw on {list}]-> {other} -[rw on {list}]-> {one}");
            if members.len() > 2 {
                summary += &format!(", and {} more with them", members.len() - 2);
            }
            let up_to = read_up_to(version);
            let reason = format!("each of them read {list} {up_to}, and wrote it");
            self.add(Kind::LostUpdate, &members, summary, vec![reason]);
        }
    }

    /// Looks for a cycle in each component over edges of these kinds that is not explained yet.
    fn components(&mut self, kinds: Kinds, passes: &[Pass]) {
        let mut ways = Ways::new(self.graph);
        for (number, members) in (1..).zip(self.graph.components(kinds)) {
            if members
                .iter()
                .any(|member| self.is_explained[*member as usize])
            {
                continue;
            }
            ways.restrict(&members, number);
            let found = passes
                .iter()
                .find_map(|pass| self.shortest_cycle(&mut ways, &members, *pass))
                .or_else(|| self.some_cycle(&mut ways, &members, kinds));
            if let Some(cycle) = found {
                self.report(&cycle);
            }
            for member in members {
                self.is_explained[member as usize] = true;
            }
        }
    }

    fn shortest_cycle(
        &self,
        ways: &mut Ways<'_>,
        members: &[u32],
        (through, back): Pass,
    ) -> Option<Vec<usize>> {
        let mut best: Option<Vec<usize>> = None;
        let budget = ways.looked_at + LOOKED_AT_MAX;
        for member in members {
            for place in self.graph.from(*member) {
                let edge = &self.graph.edges[place];
                let is_onward = matches!(edge.why, Why::Onward { .. });
                if is_onward || !edge.why.is_of(through) || !ways.is_within(edge.to) {
                    continue;
                }
                if ways.looked_at > budget {
                    return best;
                }
                let Some(mut cycle) = ways.shortest(edge.to, edge.from, back) else {
                    continue;
                };
                cycle.insert(0, place);
                if best
                    .as_ref()
                    .is_none_or(|best| self.length(&cycle) < self.length(best))
                {
                    best = Some(cycle);
                }
                if best.as_ref().is_some_and(|best| self.length(best) == 2) {
                    return best;
                }
            }
        }
        best
    }

    /// The shortest cycle through the component's first edge.
    fn some_cycle(&self, ways: &mut Ways<'_>, members: &[u32], kinds: Kinds) -> Option<Vec<usize>> {
        members.iter().find_map(|member| {
            self.graph.from(*member).find_map(|place| {
                let edge = &self.graph.edges[place];
                if !edge.why.is_of(kinds) || !ways.is_within(edge.to) {
                    return None;
                }
                let mut cycle = ways.shortest(edge.to, edge.from, kinds)?;
                cycle.insert(0, place);
                Some(cycle)
            })
        })
    }

    /// How many transactions a cycle has.
    fn length(&self, cycle: &[usize]) -> usize {
        let is_junction =
            |place: &&usize| matches!(self.graph.edges[**place].why, Why::Onward { .. });
        cycle.len() - cycle.iter().filter(is_junction).count()
    }

    fn report(&mut self, cycle: &[usize]) {
        let steps = self.steps(cycle);
        let kind = kind_of(&steps);
        let mut summary = String::new();
        let mut reasons = Vec::new();
        for step in &steps {
            let (from, to) = (self.writes.name(step.from), self.writes.name(step.to));
            summary += &format!("{from} -[{}]-> ", self.label(step.why));
            reasons.push(self.reason(from, to, step.why));
        }
        let members: Vec<u32> = steps.iter().map(|step| step.from).collect();
        summary += self.writes.name(members[0]);
        self.add(kind, &members, summary, reasons);
    }

    /// The cycle from transaction to transaction: two edges that meet in a junction are one step.
    fn steps(&self, cycle: &[usize]) -> Vec<Edge> {
        let mut edges: Vec<Edge> = cycle.iter().map(|place| self.graph.edges[*place]).collect();
        if matches!(edges[0].why, Why::Onward { .. }) {
            edges.rotate_left(1);
        }
        let mut steps: Vec<Edge> = Vec::new();
        for edge in edges {
            match (edge.why, steps.last_mut()) {
                (Why::Onward { next: value }, Some(last)) => {
                    last.to = edge.to;
                    if let Why::Rw { next: after, .. } | Why::Ww { after, .. } = &mut last.why {
                        *after = Some(value);
                    }
                }
                _ => steps.push(edge),
            }
        }
        steps
    }

    fn label(&self, why: Why) -> String {
        let (name, key) = match why {
            Why::Ww { key, .. } => ("ww", key),
            Why::Wr { key, .. } => ("wr", key),
            Why::Rw { key, .. } => ("rw", key),
            Why::Session => return "session".to_owned(),
            Why::RealTime | Why::Onward { .. } => return "real time".to_owned(),
        };
        format!("{name} on {}", self.writes.key_name(key))
    }

    fn reason(&self, from: &str, to: &str, why: Why) -> String {
        let list = |key| self.writes.key_name(key);
        let later = |after: Option<Value>| match after {
            Some(value) => format!("{to} wrote {value} later"),
            None => format!("{to} wrote later"),
        };
        match why {
            Why::Ww { key, before, after } => {
                format!(
                    "in {}, {from} wrote {before} and {}",
                    list(key),
                    later(after)
                )
            }
            Why::Wr { key, value } => {
                format!("{to} read {value} in {}, which {from} wrote", list(key))
            }
            Why::Rw { key, read, next } => {
                let up_to = read_up_to(read);
                format!("{from} read {} {up_to}, and {}", list(key), later(next))
            }
            Why::Session | Why::RealTime | Why::Onward { .. } => {
                format!("{from} ended before {to} began")
            }
        }
    }

    fn add(&mut self, kind: Kind, members: &[u32], summary: String, reasons: Vec<String>) {
        let writes = self.writes;
        self.anomalies
            .add(kind, members, summary, reasons, |at| writes.describe(at));
    }
}

fn read_up_to(version: Option<Value>) -> String {
    version.map_or_else(|| "as empty".to_owned(), |value| format!("up to {value}"))
}

fn kind_of(steps: &[Edge]) -> Kind {
    let count = |kinds: Kinds| steps.iter().filter(|step| step.why.is_of(kinds)).count();
    match (count(TIME), count(RW), count(WR)) {
        (0, 0, 0) => Kind::G0,
        (0, 0, _) => Kind::G1c,
        (0, 1, _) => Kind::GSingle,
        (0, ..) => Kind::G2Item,
        (_, 1, _) => Kind::StaleRead,
        _ => Kind::RealTime,
    }
}

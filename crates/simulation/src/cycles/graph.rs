//! A graph of transactions: its strongly connected components, and the shortest way from one to
//! another within one of them.

use std::collections::VecDeque;

use super::transaction::Value;
use super::writes::KeyId;

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The first wrote the version `before`, or an earlier one, and the second `after`.
    Ww {
        key: KeyId,
        before: Value,
        after: Option<Value>,
    },
    /// The second read what the first wrote.
    Wr { key: KeyId, value: Value },
    /// The first read the version `read`, and the second wrote a later one.
    Rw {
        key: KeyId,
        read: Option<Value>,
        next: Option<Value>,
    },
    /// From a junction on: the second wrote `next`, which no read shows.
    Onward { next: Value },
    /// The first ended before the second began, in one client.
    Session,
    /// The same, in different clients.
    RealTime,
}

/// A set of kinds of edges.
pub(super) type Kinds = u8;
pub(super) const WW: Kinds = 1;
pub(super) const WR: Kinds = 2;
pub(super) const RW: Kinds = 4;
pub(super) const TIME: Kinds = 8;
pub(super) const DATA: Kinds = WW | WR | RW;

impl Why {
    /// What is behind a junction has the kind of what leads there.
    pub(super) fn is_of(self, kinds: Kinds) -> bool {
        let kind = match self {
            Self::Ww { .. } => WW,
            Self::Wr { .. } => WR,
            Self::Rw { .. } => RW,
            Self::Session | Self::RealTime => TIME,
            Self::Onward { .. } => return true,
        };
        kinds & kind != 0
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub from: u32,
    pub to: u32,
    pub why: Why,
}

/// Edges in the order of where they start.
#[derive(Debug)]
pub(super) struct Graph {
    pub edges: Vec<Edge>,
    /// Where the edges of each node start; one more at the end.
    starts: Vec<u32>,
}

impl Graph {
    pub(super) fn new(nodes: usize, mut edges: Vec<Edge>) -> Self {
        edges.sort_by_key(|edge| edge.from);
        let mut starts = vec![0_u32; nodes + 1];
        for edge in &edges {
            starts[edge.from as usize + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        Self { edges, starts }
    }

    pub(super) fn node_count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The places of a node's edges.
    pub(super) fn from(&self, node: u32) -> std::ops::Range<usize> {
        self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize
    }

    /// The strongly connected components of more than one node (Tarjan's, without recursion), over
    /// edges of these kinds.
    pub(super) fn components(&self, kinds: Kinds) -> Vec<Vec<u32>> {
        let mut search = Tarjan {
            graph: self,
            kinds,
            next: 1,
            numbers: vec![0; self.node_count()],
            lows: vec![0; self.node_count()],
            is_open: vec![false; self.node_count()],
            open: Vec::new(),
            found: Vec::new(),
        };
        for node in 0..self.node_count() as u32 {
            if search.numbers[node as usize] == 0 {
                search.walk(node);
            }
        }
        search.found
    }
}

struct Tarjan<'g> {
    graph: &'g Graph,
    kinds: Kinds,
    next: u32,
    /// When each node was first met; 0 is never.
    numbers: Vec<u32>,
    lows: Vec<u32>,
    is_open: Vec<bool>,
    open: Vec<u32>,
    found: Vec<Vec<u32>>,
}

impl Tarjan<'_> {
    fn enter(&mut self, node: u32) {
        self.numbers[node as usize] = self.next;
        self.lows[node as usize] = self.next;
        self.next += 1;
        self.is_open[node as usize] = true;
        self.open.push(node);
    }

    fn walk(&mut self, start: u32) {
        self.enter(start);
        let mut path = vec![(start, self.graph.from(start))];
        while let Some((node, edges)) = path.last_mut() {
            let node = *node;
            let Some(place) = edges.next() else {
                path.pop();
                if let Some((before, _)) = path.last() {
                    let low = self.lows[node as usize];
                    let lowest = &mut self.lows[*before as usize];
                    *lowest = low.min(*lowest);
                }
                self.close(node);
                continue;
            };
            let edge = self.graph.edges[place];
            if !edge.why.is_of(self.kinds) {
                continue;
            }
            if self.numbers[edge.to as usize] == 0 {
                self.enter(edge.to);
                path.push((edge.to, self.graph.from(edge.to)));
            } else if self.is_open[edge.to as usize] {
                let number = self.numbers[edge.to as usize];
                let lowest = &mut self.lows[node as usize];
                *lowest = number.min(*lowest);
            }
        }
    }

    /// Takes the component off the stack when `node` was met first of it.
    fn close(&mut self, node: u32) {
        if self.lows[node as usize] != self.numbers[node as usize] {
            return;
        }
        let place = self.open.iter().rposition(|open| *open == node);
        let members = self.open.split_off(place.unwrap_or(0));
        for member in &members {
            self.is_open[*member as usize] = false;
        }
        if members.len() > 1 {
            self.found.push(members);
        }
    }
}

/// Shortest ways, one search after the other.
#[derive(Debug)]
pub(super) struct Ways<'g> {
    graph: &'g Graph,
    /// The component that each node is in, and the one that is walked on.
    component: Vec<u32>,
    current: u32,
    /// The search that last met a node, how far it is, and by which edge it was reached.
    met: Vec<(u32, u32, usize)>,
    search: u32,
    /// Edges that were looked at in all searches.
    pub looked_at: u64,
}

impl<'g> Ways<'g> {
    pub(super) fn new(graph: &'g Graph) -> Self {
        Self {
            graph,
            component: vec![0; graph.node_count()],
            current: 0,
            met: vec![(0, 0, 0); graph.node_count()],
            search: 0,
            looked_at: 0,
        }
    }

    /// From here on only these nodes are walked on; `number` is above 0 and new.
    pub(super) fn restrict(&mut self, members: &[u32], number: u32) {
        for member in members {
            self.component[*member as usize] = number;
        }
        self.current = number;
    }

    pub(super) fn is_within(&self, node: u32) -> bool {
        self.component[node as usize] == self.current
    }

    /// The edges of a shortest way between two nodes of the component, over edges of these kinds.
    /// The edge behind a junction costs nothing.
    pub(super) fn shortest(&mut self, from: u32, to: u32, kinds: Kinds) -> Option<Vec<usize>> {
        self.search += 1;
        self.met[from as usize] = (self.search, 0, usize::MAX);
        let mut queue = VecDeque::from([(from, 0)]);
        while let Some((node, far)) = queue.pop_front() {
            if node == to {
                return Some(self.way_back(from, to));
            }
            if self.met[node as usize].1 < far {
                continue;
            }
            for place in self.graph.from(node) {
                self.looked_at += 1;
                let edge = &self.graph.edges[place];
                if !self.is_within(edge.to) || !edge.why.is_of(kinds) {
                    continue;
                }
                let is_free = matches!(edge.why, Why::Onward { .. });
                let far = far + u32::from(!is_free);
                let (search, known, _) = self.met[edge.to as usize];
                if search == self.search && known <= far {
                    continue;
                }
                self.met[edge.to as usize] = (self.search, far, place);
                if is_free {
                    queue.push_front((edge.to, far));
                } else {
                    queue.push_back((edge.to, far));
                }
            }
        }
        None
    }

    fn way_back(&self, from: u32, to: u32) -> Vec<usize> {
        let (mut way, mut at) = (Vec::new(), to);
        while at != from {
            let place = self.met[at as usize].2;
            way.push(place);
            at = self.graph.edges[place].from;
        }
        way.reverse();
        way
    }
}

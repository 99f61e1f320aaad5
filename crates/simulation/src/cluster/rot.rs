//! Damage of a durable frame of one node's log: a bit is another one, a write never came to the disk, or
//! the write of another frame went to its place. The node finds that when it reads. It is mended as in
//! the real node: before the start, or under a reader, with a copy of the entry from another node. One frame of the cluster is damaged at a time, only a committed one that another
//! node has and that the hard state counts as durable, and nobody drops it meanwhile: so all of it can be
//! mended. Damage above that is taken for a torn write, and cut.

use onelog_log::{
    Copied, Corruption, HardState, Log, MendError, OpenError, ReadError, SECTOR_BYTES,
    SimulatedDisk,
};
use onelog_record::{Index, NodeId};
use onelog_replica::StartError;
use rand::Rng as _;

use super::node::Node;
use super::world::World;
use crate::workloads::Random;

const FRAME_MAGIC: &[u8] = b"OLG1";
/// Where a frame's header has the length of its body, and its index.
const BODY_LEN: std::ops::Range<usize> = 8..12;
const INDEX: std::ops::Range<usize> = 24..32;
const FRAME_HEADER_BYTES: usize = 88;
const FRAME_ALIGNMENT: usize = 8;
const SEGMENT_SUFFIX: &str = ".log";
const BEFORE_START: &str = "a damaged frame was put back before the start";
const UNDER_READER: &str = "a damaged frame was put back under a reader";
const BIT: &str = "a bit of a frame turned";
const LOST: &str = "the write of a frame was lost";
const MISDIRECTED: &str = "another frame was written in the place of a frame";

/// The damage that is there now.
#[derive(Debug)]
pub(super) struct Rot {
    pub node: NodeId,
    index: Index,
    file: String,
    damage: Damage,
    /// Whether the world has looked at everything since.
    is_old: bool,
    /// The log begins behind it. Where power fails before its segment is dropped, it comes back.
    is_gone: bool,
}

#[derive(Debug)]
enum Damage {
    Bit(u64),
    /// Other bytes than these are there.
    Bytes {
        at: usize,
        were: Vec<u8>,
    },
}

impl Damage {
    /// Does it to one frame.
    fn any(
        disk: &SimulatedDisk,
        index: Index,
        found: &Frame,
        random: &mut Random,
    ) -> (Self, &'static str) {
        let Frame { file, bytes } = found;
        let bits = 8 * bytes.start as u64..8 * bytes.end as u64;
        let kind = random.random_range(0..4);
        let other = (kind == 3)
            .then(|| bytes_before(disk, index, file))
            .flatten();
        let (written, what) = match (kind, other) {
            (0 | 1, _) => {
                let bit = random.random_range(bits);
                disk.flip(file, bit);
                return (Self::Bit(bit), BIT);
            }
            (_, Some(other)) => (other, MISDIRECTED),
            (_, None) => (vec![0; bytes.len()], LOST),
        };
        let len = written.len().min(bytes.len());
        let at = bytes.start;
        let were = disk.replace(file, at, &written[..len]);
        (Self::Bytes { at, were }, what)
    }

    fn take_back(&self, disk: &SimulatedDisk, file: &str) {
        match self {
            Self::Bit(bit) => disk.flip(file, *bit),
            Self::Bytes { at, were } => drop(disk.replace(file, *at, were)),
        }
    }
}

/// Where a frame is on a disk.
struct Frame {
    file: String,
    bytes: std::ops::Range<usize>,
}

fn frame(disk: &SimulatedDisk, index: Index) -> Option<Frame> {
    let files = disk.files().into_iter();
    let mut segments = files.filter(|(name, _)| name.ends_with(SEGMENT_SUFFIX));
    segments.find_map(|(name, bytes)| {
        let mut places = (0..bytes.len()).step_by(FRAME_ALIGNMENT);
        let is_it = |at: &usize| {
            let head = bytes.get(*at..at + FRAME_HEADER_BYTES);
            head.is_some_and(|head| {
                head.starts_with(FRAME_MAGIC) && head[INDEX] == index.get().to_le_bytes()
            })
        };
        let at = places.find(is_it)?;
        let len = bytes[at..][BODY_LEN].try_into().map(u32::from_le_bytes);
        let bytes = at..at + FRAME_HEADER_BYTES + len.ok()? as usize;
        Some(Frame { file: name, bytes })
    })
}

/// The bytes of the frame before, where it is in the same file.
fn bytes_before(disk: &SimulatedDisk, index: Index, file: &str) -> Option<Vec<u8>> {
    let before = frame(disk, Index(index.get().checked_sub(1)?))?;
    let files = disk.files();
    let bytes = files.get(file)?.get(before.bytes)?;
    (before.file == file).then(|| bytes.to_vec())
}

impl World {
    /// A bit of a frame turns, where that can be mended.
    pub(super) fn rot(&mut self, id: NodeId, random: &mut Random) {
        self.forget_rot();
        let node = &self.nodes[&id];
        if self.present_rot().is_some()
            || !node.runs()
            || node.may_fail
            || !self.members.1.is_voter(id)
        {
            return;
        }
        let replica = node.replica();
        let (first, durable) = (replica.first_index(), replica.durable());
        // Above what the log itself knows to be durable, damage is what a torn write is.
        let Ok(Some(saved)) = HardState::read(&node.log) else {
            return;
        };
        let last = replica.applied().index.min(durable).min(saved.durable);
        if last <= first {
            return;
        }
        let index = Index(random.random_range(first.get()..last.get()));
        let has = |other: &&Node| {
            let is_other = other.id != id && other.runs() && !other.may_fail;
            is_other && {
                let there = other.replica();
                there.first_index() <= index && index <= there.applied().index.min(there.durable())
            }
        };
        if !self.nodes.values().any(|other| has(&other)) {
            return;
        }
        let (Some(found), Some(end)) = (frame(&node.log, index), frame(&node.log, durable)) else {
            return;
        };
        // A sector that is still written to would bring the old bytes back.
        if found.file == end.file && found.bytes.end + SECTOR_BYTES > end.bytes.start {
            return;
        }
        let (damage, what) = Damage::any(&node.log, index, &found, random);
        self.reached.note(what, 1);
        self.rots.push(Rot {
            node: id,
            index,
            file: found.file,
            damage,
            is_old: false,
            is_gone: false,
        });
        self.get(id).has_rot = true;
    }

    /// What was damaged may be in the log no more.
    fn forget_rot(&mut self) {
        let nodes = &self.nodes;
        self.rots.retain(|rot| nodes.contains_key(&rot.node));
        for rot in &mut self.rots {
            let node = &nodes[&rot.node];
            rot.is_gone |= node.runs() && node.replica().first_index() > rot.index;
        }
    }

    fn present_rot(&self) -> Option<&Rot> {
        self.rots.iter().find(|rot| !rot.is_gone)
    }

    /// The node whose log is damaged now.
    pub(super) fn rotten(&mut self) -> Option<NodeId> {
        self.forget_rot();
        self.present_rot().map(|rot| rot.node)
    }

    /// Whether a node may drop the start of its log: others may need a copy of what is in it.
    pub(super) fn may_retain(&mut self, id: NodeId) -> bool {
        self.rotten().is_none_or(|rotten| rotten == id)
    }

    /// It is mended, or turned back.
    fn end_one(&mut self, place: usize) -> Rot {
        let ended = self.rots.remove(place);
        let id = ended.node;
        let has_rot = self.rots.iter().any(|rot| rot.node == id);
        self.get(id).has_rot = has_rot;
        ended
    }

    /// The entry as the others have it.
    fn copies(&mut self, index: Index, of: NodeId) -> Vec<Copied> {
        let can_be_read = |node: &&mut Node| node.id != of && node.runs() && !node.has_rot;
        let others = self.nodes.values_mut().filter(can_be_read);
        let copied = others.filter_map(|node| {
            let committed = node.replica().applied().index;
            match node.life().reader.copied(index, committed) {
                Err(_) if node.may_fail => None,
                copied => copied.unwrap(),
            }
        });
        copied.collect()
    }

    /// Tries one copy after the other; answers whether the frame is whole now.
    fn put_back(
        &mut self,
        fault: &Corruption,
        id: NodeId,
        put: impl Fn(&Copied) -> Result<(), MendError>,
        what: &'static str,
    ) -> bool {
        let mut rots = self.rots.iter();
        let place = rots.position(|rot| rot.node == id && rot.index == fault.index);
        let Some(place) = place else {
            panic!("node {id} has damage that no fault made: {fault}");
        };
        for copied in self.copies(fault.index, id) {
            match put(&copied) {
                Ok(()) => {
                    self.end_one(place);
                    self.reached.note(what, 1);
                    return true;
                }
                // Another node may have the right one, or this one later.
                Err(MendError::NotCommitted(_) | MendError::Other { .. }) => {}
                Err(MendError::Open(_)) if self.nodes[&id].may_fail => return false,
                // All behind it was cut, and so it looks like an end that is gone.
                Err(MendError::LostTail { .. }) => {
                    self.turn_back(place);
                    return true;
                }
                Err(other) => panic!("entry {} of node {id} is not mended: {other}", fault.index),
            }
        }
        let is_gone = self.rots[place].is_gone;
        if is_gone {
            self.turn_back(place);
        }
        is_gone
    }

    /// The bytes are as they were: a damage that cannot be mended is not what is to be shown.
    fn turn_back(&mut self, place: usize) {
        let rot = self.end_one(place);
        rot.damage.take_back(&self.nodes[&rot.node].log, &rot.file);
    }

    /// A reader has met damage.
    pub(super) fn mend(&mut self, id: NodeId, fault: &Corruption) -> bool {
        let reader = self.get(id).life().reader.clone();
        self.put_back(fault, id, |copied| reader.mend(copied), UNDER_READER)
    }

    /// A node starts, and what turns out to be damaged is put back first. Answers `false` where no
    /// other node can give it.
    pub(super) fn start(&mut self, id: NodeId) -> Result<bool, StartError> {
        let mut started = self.get(id).start();
        loop {
            match started {
                Err(StartError::Log(OpenError::Corrupt(fault))) => {
                    let disk = self.get(id).log.clone();
                    let put = |copied: &Copied| Log::mend(&disk, copied);
                    if !self.put_back(&fault, id, put, BEFORE_START) {
                        return Ok(false);
                    }
                    started = self.get(id).start();
                }
                Err(StartError::Replay(ReadError::Corrupt(fault))) => {
                    if !self.mend(id, &fault) {
                        self.get(id).end();
                        return Ok(false);
                    }
                    started = self.get(id).lead_on();
                }
                started => return started.map(|()| true),
            }
        }
    }

    /// Entries are read for a follower.
    pub(super) fn run_fetch(&mut self, id: NodeId) {
        while let Some(fault) = self.get(id).run_fetch() {
            if !self.mend(id, &fault) {
                return;
            }
        }
    }

    /// Damage that nothing has met for long is looked for.
    pub(super) fn scrub(&mut self) {
        self.forget_rot();
        let Some(rot) = self.rots.iter_mut().find(|rot| !rot.is_gone) else {
            return;
        };
        if !std::mem::replace(&mut rot.is_old, true) {
            return;
        }
        let (id, index) = (rot.node, rot.index);
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.runs() && !n.may_fail) else {
            return;
        };
        match node.life().reader.entries(index, index.next(), usize::MAX) {
            Err(ReadError::Corrupt(fault)) => drop(self.mend(id, &fault)),
            read => panic!("the damaged frame of entry {index} of node {id} is read as {read:?}"),
        }
    }

    /// Nothing fails any more: what is damaged is mended, or was never damaged.
    pub(super) fn end_rot(&mut self) {
        self.scrub();
        self.scrub();
        while let Some(place) = self.rots.iter().position(|rot| !rot.is_gone) {
            self.turn_back(place);
        }
    }
}

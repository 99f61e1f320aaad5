//! Disks that lie: bits that flip and ends that go, on one node of several. Nothing of what was
//! acknowledged is lost, and a node whose disk is damaged takes no part until it is mended.

use std::path::PathBuf;
use std::time::Duration;

use onelog::{ClusterError, OpenError, Position};

use crate::rig::{Cluster, PATIENCE};

/// Long enough for what answers at all; waited for in vain.
const SHORT: Duration = Duration::from_millis(300);
/// The header block of a segment, in which there are no frames.
const HEADER_BYTES: usize = 4096;
/// Where the body of a frame begins.
const BODY_AT: usize = 88;

/// A frame in a node's log.
#[derive(Clone, Debug)]
struct Frame {
    file: PathBuf,
    at: usize,
}

/// All frames of a node's log, in order.
fn frames(cluster: &mut Cluster, id: u64) -> Vec<Frame> {
    let folder = cluster.place(id).folder.path().join("log");
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ext| ext == "log"));
    files.sort();
    let mut frames = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let places = (HEADER_BYTES..bytes.len()).step_by(8);
        let starts = places.filter(|at| bytes[*at..].starts_with(b"OLG1"));
        frames.extend(starts.map(|at| Frame {
            file: file.clone(),
            at,
        }));
    }
    frames
}

impl Frame {
    fn change(&self, change: impl FnOnce(&mut [u8])) {
        use std::os::unix::fs::FileExt as _;
        let mut how = std::fs::OpenOptions::new();
        let file = how.read(true).write(true).open(&self.file).unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize - self.at];
        file.read_exact_at(&mut bytes, self.at as u64).unwrap();
        let before = bytes.clone();
        change(&mut bytes);
        let changed = (0..bytes.len()).filter(|at| bytes[*at] != before[*at]);
        for at in changed {
            file.write_all_at(&bytes[at..=at], (self.at + at) as u64)
                .unwrap();
        }
    }

    fn flip(&self, byte: usize) {
        self.change(|bytes| bytes[byte] ^= 4);
    }

    /// It and all behind it are gone.
    fn lose(&self) {
        self.change(|bytes| bytes.fill(0));
    }
}

fn fill(cluster: &Cluster, id: u64, keys: std::ops::Range<usize>) {
    let value = format!("\"{}\"", "v".repeat(2_000));
    for key in keys {
        cluster.put(id, &format!("k{key}"), &value).unwrap();
    }
}

#[test]
fn bits_that_flipped_on_one_node_are_mended_by_the_others_before_it_takes_part() {
    let mut cluster = Cluster::of(3);
    fill(&cluster, 1, 0..10);
    cluster.check_equal();
    // Given a node with a bit flipped in its first entry, in one in the middle and in its last one,
    cluster.stop(3);
    let all = frames(&mut cluster, 3);
    for (place, byte) in [(0, 20), (all.len() / 2, BODY_AT), (all.len() - 1, 66)] {
        all[place].flip(byte);
    }
    // when it starts, then it has them from the others, and what was acknowledged is there.
    cluster.start(3, &[1, 2]).unwrap();
    assert_eq!(cluster.status(3).mended_frames, 3);
    fill(&cluster, 3, 10..12);
    cluster.check_equal();
    // The next start finds nothing to mend.
    cluster.stop(3);
    cluster.start(3, &[1, 2]).unwrap();
    assert_eq!(cluster.status(3).mended_frames, 0);
    cluster.check_equal();
}

#[test]
fn a_damaged_node_that_no_other_one_can_help_does_not_start_until_one_can() {
    let mut cluster = Cluster::of(3);
    fill(&cluster, 1, 0..10);
    cluster.check_equal();
    let mut damage = Vec::new();
    // Given two nodes that are damaged at different places, while the third one is down,
    for id in [3, 2, 1] {
        cluster.stop(id);
        let all = frames(&mut cluster, id);
        damage.push(all[all.len() / 2 + id as usize].clone());
    }
    for frame in &damage[..2] {
        frame.flip(20);
    }
    let mut options = cluster.node_options(3, &[1, 2]);
    options.cluster.as_mut().unwrap().start_timeout = SHORT;
    let refused = cluster.start_with(3, options).unwrap_err();
    let is_named = matches!(refused, OpenError::Cluster(ClusterError::Damaged { .. }));
    assert!(is_named, "{refused}");
    assert!(
        refused.to_string().contains("under a new number"),
        "{refused}"
    );
    // when that one is back, then both are mended.
    cluster.start(1, &[2, 3]).unwrap();
    cluster.start(2, &[1, 3]).unwrap();
    cluster.start(3, &[1, 2]).unwrap();
    for id in [2, 3] {
        assert_eq!(cluster.status(id).mended_frames, 1);
    }
    cluster.check_equal();
}

#[test]
fn a_node_whose_log_has_lost_its_end_never_starts_again() {
    let mut cluster = Cluster::of(3);
    fill(&cluster, 1, 0..10);
    cluster.check_equal();
    cluster.stop(3);
    let all = frames(&mut cluster, 3);
    all[all.len() - 2].lose();
    let refused = cluster.start(3, &[1, 2]).unwrap_err();
    let is_named = matches!(refused, OpenError::Cluster(ClusterError::LostTail { .. }));
    assert!(is_named, "{refused}");
    let text = refused.to_string();
    assert!(
        text.contains("Remove node 3") && text.contains("under a new number"),
        "{text}"
    );
}

#[test]
fn what_rots_while_a_node_runs_is_mended_when_it_is_read() {
    // Given logs of several segments,
    let mut cluster = Cluster::of(3);
    fill(&cluster, 1, 0..120);
    cluster.check_equal();
    let all = frames(&mut cluster, 2);
    assert_ne!(all[10].file, all[all.len() - 1].file);
    // when an old entry of a node that runs is damaged, and read,
    all[10].flip(20);
    let mut at = Position::ZERO;
    while at < cluster.get(2).position() {
        at = cluster.get(2).read_log(at, 1 << 20).unwrap().next;
    }
    // then it is mended before it is served.
    assert_eq!(cluster.status(2).mended_frames, 1);
    // When a leader has damaged what a follower needs,
    cluster.stop(3);
    fill(&cluster, 1, 120..200);
    for id in [1, 2] {
        // A start forgets what was only in memory.
        cluster.stop(id);
        cluster.start(id, &[3 - id]).unwrap();
    }
    let leader = cluster.leader();
    let all = frames(&mut cluster, leader);
    all[all.len() - 60].flip(BODY_AT);
    cluster.start(3, &[1, 2]).unwrap();
    // then the other one helps, and the follower gets it.
    let end = cluster.get(leader).position();
    cluster.get(3).wait_for_blocking(end, PATIENCE).unwrap();
    assert_eq!(cluster.status(leader).mended_frames, 1);
    cluster.check_equal();
}

//! Processes by id: whole families are stopped, continued and killed.
//!
//! PostgreSQL's backends are each leader of an own process group, so a family is found by its
//! parents in `/proc`, not by a group. A process is known by its id *and* its start: ids are used
//! again.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Between two looks at a process that was signalled to stop or to end.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Looks before a process that does not obey SIGKILL or SIGSTOP is given up: 60 s.
const LOOKS: usize = 30_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    id: u32,
    parent: u32,
    state: u8,
    started: u64,
}

/// Kills a server and all that descends from it; returns when they are gone. The server is stopped
/// first: then no child of it can be missed, and no id in the list can be used again.
pub(crate) fn kill_family(root: &mut Child) {
    let family = if root.try_wait().is_ok_and(|ended| ended.is_some()) {
        Vec::new()
    } else {
        pause_family(root.id())
    };
    for process in &family {
        signal(process.id, Signal::KILL);
    }
    signal_child(root, Signal::KILL);
    root.wait().expect("a child can be waited for");
    wait_until(
        || family.iter().all(is_gone),
        || format!("{family:?} did not end"),
    );
}

/// Stops a process and all its descendants, which are returned.
fn pause_family(root: u32) -> Vec<Process> {
    signal(root, Signal::STOP);
    wait_until(
        || read(root).is_none_or(|process| matches!(process.state, b'T' | b't' | b'Z' | b'X')),
        || format!("process {root} did not stop"),
    );
    let family = descendants(root);
    for process in &family {
        signal(process.id, Signal::STOP);
    }
    family
}

/// Stops (SIGSTOP) a server's processes.
pub(crate) fn pause(root: u32) {
    pause_family(root);
}

/// Lets a server's processes go on (SIGCONT).
pub(crate) fn resume(root: u32) {
    for process in descendants(root) {
        signal(process.id, Signal::CONT);
    }
    signal(root, Signal::CONT);
}

/// Signals a child; one that ended and was not waited for yet does not mind.
pub(crate) fn signal_child(child: &Child, what: Signal) {
    signal(child.id(), what);
}

fn signal(id: u32, what: Signal) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    let id = id.expect("process ids are positive");
    match kill_process(id, what) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("signalling process {id:?}: {error}"),
    }
}

fn is_gone(process: &Process) -> bool {
    read(process.id).is_none_or(|now| now.started != process.started || now.state == b'Z')
}

fn descendants(root: u32) -> Vec<Process> {
    let all: Vec<Process> = fs::read_dir("/proc")
        .expect("/proc can be read")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(read)
        .collect();
    let mut family: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for child in all.iter().filter(|process| process.parent == parent) {
            parents.push(child.id);
            family.push(*child);
        }
    }
    family
}

/// `/proc/ID/stat`: `id (name) state parent …`, the start is field 22; the name may hold anything.
fn read(id: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    Some(Process {
        id,
        state: fields.next()?.as_bytes()[0],
        parent: fields.next()?.parse().ok()?,
        started: fields.nth(17)?.parse().ok()?,
    })
}

fn wait_until(done: impl Fn() -> bool, problem: impl Fn() -> String) {
    for _ in 0..LOOKS {
        if done() {
            return;
        }
        thread::sleep(LOOK_AGAIN);
    }
    panic!("{}", problem());
}

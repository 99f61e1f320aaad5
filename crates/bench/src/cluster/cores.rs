//! On which cores the nodes' processes run: what one node costs another can only be seen where they
//! do not share them.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::rig::Member;
use crate::load::Failure;

/// The cores of this process, the last of them apart.
pub struct Cores {
    all: Vec<usize>,
}

impl Cores {
    /// `None` where there is only one.
    pub fn here() -> Result<Option<Self>, Failure> {
        let own = sched_getaffinity(None)?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|core| own.is_set(*core))
            .collect();
        Ok((all.len() > 1).then_some(Self { all }))
    }

    pub fn all(&self) -> &[usize] {
        &self.all
    }

    pub fn all_but_the_last(&self) -> &[usize] {
        &self.all[..self.all.len() - 1]
    }

    pub fn last(&self) -> &[usize] {
        &self.all[self.all.len() - 1..]
    }
}

/// Has every thread of a node's process run on these cores, and what they start.
pub fn keep_to(cores: &[usize], member: &Member) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    for thread in std::fs::read_dir(format!("/proc/{}/task", member.pid()))? {
        let number = thread?.file_name().to_string_lossy().parse()?;
        let thread = Pid::from_raw(number).ok_or("a thread without a number")?;
        match sched_setaffinity(Some(thread), &set) {
            // It has ended.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

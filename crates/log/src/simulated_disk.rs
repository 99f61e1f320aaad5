//! A disk in memory that loses, tears and reorders what was not flushed, and fails on demand.
//!
//! Every file has a durable image and, for each sector written since its last flush, every state
//! that the sector had since then. A crash picks one of them for each sector. Names are treated
//! alike. Deterministic: the same seed and the same calls give the same crashes.
//!
//! Any number of threads may use it; with one thread the steps are reproducible.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};

/// The bytes that reach the platter together.
pub const SECTOR_BYTES: usize = 512;

/// What a crash makes of everything that was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    LoseAll,
    /// Each sector is in any state that it had since the flush.
    RandomPart,
    /// All is there but the last write, of which only a first part is.
    TearLast,
    /// Some writes are there whole, others not at all, whatever their order.
    Reorder,
}

impl CrashMode {
    pub const ALL: [Self; 4] = [
        Self::LoseAll,
        Self::RandomPart,
        Self::TearLast,
        Self::Reorder,
    ];
}

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails. A failed write may have happened in part; what a failed flush should have
    /// made durable never will be.
    Error,
    /// The disk is full: whatever needs space fails, from this step on, until `mend`.
    Full,
    /// Power is gone: this call and all later ones fail until `crash`.
    CrashNow,
}

/// A disk in memory. A clone is another handle on the same disk.
#[derive(Clone, Debug)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    files: BTreeMap<u64, SimulatedFile>,
    next_file: u64,
    next_write: u64,
    steps: u64,
    faults: BTreeMap<u64, Fault>,
    full: bool,
    free_bytes: Option<u64>,
    down: bool,
    /// Handles of an earlier epoch are dead: their process did not survive the crash.
    epoch: u64,
    random: u64,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug, Default)]
struct SimulatedFile {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// The states of each sector since the flush, each with the number of its write.
    dirty: BTreeMap<usize, Vec<(u64, Vec<u8>)>>,
}

impl SimulatedDisk {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_files(seed, BTreeMap::new())
    }

    /// A disk that durably holds these files.
    #[must_use]
    pub fn with_files(seed: u64, files: BTreeMap<String, Vec<u8>>) -> Self {
        let mut state = State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            files: BTreeMap::new(),
            next_file: 0,
            next_write: 0,
            steps: 0,
            faults: BTreeMap::new(),
            full: false,
            free_bytes: None,
            down: false,
            epoch: 0,
            random: seed ^ 0x9e37_79b9_7f4a_7c15,
        };
        for (name, bytes) in files {
            let id = state.new_file(SimulatedFile {
                current: bytes.clone(),
                durable: bytes,
                dirty: BTreeMap::new(),
            });
            state.names.insert(name.clone(), id);
            state.durable_names.insert(name, id);
        }
        Self(Arc::new(Mutex::new(state)))
    }

    /// The files as a running process sees them.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock();
        state
            .names
            .iter()
            .map(|(name, id)| (name.clone(), state.files[id].current.clone()))
            .collect()
    }

    /// How many calls there were so far; the next one is the step of this number.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.lock().steps
    }

    /// Lets the call of number `step` meet `fault`.
    pub fn fail_at(&self, step: u64, fault: Fault) {
        self.0.lock().faults.insert(step, fault);
    }

    /// Takes back every planned fault, and a full disk.
    pub fn mend(&self) {
        let mut state = self.0.lock();
        state.faults.clear();
        state.full = false;
    }

    /// Whether a planned [`Fault::Full`] has come and was not mended.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.lock().full
    }

    /// What the disk says about its room. Whether there is any, only [`Fault::Full`] decides.
    pub fn set_free_bytes(&self, free_bytes: u64) {
        self.0.lock().free_bytes = Some(free_bytes);
    }

    /// Flips one bit of a file, durably and without a trace.
    pub fn flip(&self, name: &str, bit: u64) {
        let mut state = self.0.lock();
        let Some(id) = state.names.get(name).copied() else {
            return;
        };
        let (byte, mask) = ((bit / 8) as usize, 1u8 << (bit % 8));
        if let Some(file) = state.files.get_mut(&id) {
            for image in [&mut file.current, &mut file.durable] {
                if let Some(byte) = image.get_mut(byte) {
                    *byte ^= mask;
                }
            }
        }
    }

    /// Puts other bytes in the place of some of a file, durably and without a trace; answers those that
    /// were there.
    pub fn replace(&self, name: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut state = self.0.lock();
        let mut were = Vec::new();
        let Some(id) = state.names.get(name).copied() else {
            return were;
        };
        if let Some(file) = state.files.get_mut(&id) {
            for image in [&mut file.current, &mut file.durable] {
                if let Some(place) = image.get_mut(at..at + bytes.len()) {
                    were = place.to_vec();
                    place.copy_from_slice(bytes);
                }
            }
        }
        were
    }

    /// Power fails and comes back: what was not flushed becomes what `mode` says, every open
    /// handle is dead, planned faults are forgotten.
    pub fn crash(&self, mode: CrashMode) {
        let mut state = self.0.lock();
        state.down = false;
        state.full = false;
        state.faults.clear();
        state.epoch += 1;
        state.crash_names(mode);
        let lucky: Vec<bool> = (0..state.next_write).map(|_| state.coin()).collect();
        let last = state.next_write.saturating_sub(1);
        let mut files = std::mem::take(&mut state.files);
        for file in files.values_mut() {
            file.crash(mode, &lucky, last, &mut state);
        }
        let kept: Vec<u64> = state.names.values().copied().collect();
        files.retain(|id, _| kept.contains(id));
        state.files = files;
        state.next_write = 0;
    }
}

impl State {
    fn new_file(&mut self, file: SimulatedFile) -> u64 {
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, file);
        id
    }

    fn number(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.number() & 1 == 0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }

    /// Counts a call; answers the fault that it meets.
    fn step(&mut self, needs_space: bool) -> Result<Option<Fault>, io::Error> {
        if self.down {
            return Err(io::Error::other("the simulated disk has no power"));
        }
        let fault = self.faults.get(&self.steps).copied();
        self.steps += 1;
        match fault {
            Some(Fault::CrashNow) => {
                self.down = true;
                Ok(fault)
            }
            Some(Fault::Full) => {
                self.full = true;
                Ok(needs_space.then_some(Fault::Full))
            }
            Some(Fault::Error) => Ok(fault),
            None => Ok((self.full && needs_space).then_some(Fault::Full)),
        }
    }

    /// A step that a fault stops before it has any effect.
    fn plain_step(&mut self, needs_space: bool) -> io::Result<()> {
        self.step(needs_space)?.map_or(Ok(()), |f| Err(failure(f)))
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn crash_names(&mut self, mode: CrashMode) {
        let pending = std::mem::take(&mut self.pending_names);
        let mut names = self.durable_names.clone();
        let count = pending.len();
        for (at, change) in pending.iter().enumerate() {
            let kept = match mode {
                CrashMode::LoseAll => false,
                CrashMode::RandomPart | CrashMode::Reorder => self.coin(),
                CrashMode::TearLast => at + 1 < count,
            };
            if kept {
                apply_name(&mut names, change);
            }
        }
        self.durable_names.clone_from(&names);
        self.names = names;
    }
}

fn apply_name(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Create(name, id) => {
            names.insert(name.clone(), *id);
        }
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

fn failure(fault: Fault) -> io::Error {
    match fault {
        Fault::Error => io::Error::other("planned failure of the simulated disk"),
        Fault::Full => io::Error::new(io::ErrorKind::StorageFull, "the simulated disk is full"),
        Fault::CrashNow => io::Error::other("the simulated disk lost power"),
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl SimulatedFile {
    fn write(&mut self, at: usize, bytes: &[u8], number: u64) {
        let end = at + bytes.len();
        if self.current.len() < end {
            self.current.resize(end, 0);
        }
        self.current[at..end].copy_from_slice(bytes);
        self.mark(at, end, number);
    }

    fn mark(&mut self, at: usize, end: usize, number: u64) {
        if at == end {
            return;
        }
        for sector in at / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            let from = sector * SECTOR_BYTES;
            let to = (from + SECTOR_BYTES).min(self.current.len());
            let image = self.current[from..to].to_vec();
            self.dirty.entry(sector).or_default().push((number, image));
        }
    }

    fn put_durable(&mut self, sector: usize, image: &[u8]) {
        let from = sector * SECTOR_BYTES;
        if self.durable.len() < from + image.len() {
            self.durable.resize(from + image.len(), 0);
        }
        self.durable[from..from + image.len()].copy_from_slice(image);
    }

    fn sync(&mut self) {
        for (sector, mut images) in std::mem::take(&mut self.dirty) {
            if let Some((_, image)) = images.pop() {
                self.put_durable(sector, &image);
            }
        }
        self.durable.resize(self.current.len(), 0);
    }

    fn set_len(&mut self, len: usize, number: u64) {
        let before = self.current.len();
        self.current.resize(len, 0);
        if len > before {
            self.mark(before, len, number);
        } else {
            self.dirty.retain(|sector, _| sector * SECTOR_BYTES < len);
            for (sector, images) in &mut self.dirty {
                for (_, image) in images {
                    image.truncate(len - sector * SECTOR_BYTES);
                }
            }
        }
    }

    fn crash(&mut self, mode: CrashMode, lucky: &[bool], last: u64, state: &mut State) {
        let torn_at = self
            .dirty
            .iter()
            .filter(|(_, images)| images.iter().any(|(number, _)| *number == last))
            .map(|(sector, _)| *sector)
            .collect::<Vec<_>>();
        let kept_of_last = state.below(torn_at.len() + 1);
        for (sector, images) in std::mem::take(&mut self.dirty) {
            let count = images.len();
            let picked = match mode {
                CrashMode::LoseAll => None,
                CrashMode::RandomPart => state.below(count + 1).checked_sub(1),
                CrashMode::TearLast => {
                    let reached = torn_at
                        .iter()
                        .position(|torn| *torn == sector)
                        .is_none_or(|place| place < kept_of_last);
                    images
                        .iter()
                        .rposition(|(number, _)| *number != last || reached)
                }
                CrashMode::Reorder => images
                    .iter()
                    .rposition(|(number, _)| lucky.get(*number as usize).copied() == Some(true)),
            };
            if let Some(place) = picked {
                self.put_durable(sector, &images[place].1);
            }
        }
        // The length is metadata: it may have reached the disk without the bytes.
        if self.current.len() != self.durable.len() && mode != CrashMode::LoseAll && state.coin() {
            self.durable.resize(self.current.len(), 0);
        }
        self.current.clone_from(&self.durable);
    }
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.plain_step(false)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.plain_step(false)?;
        let id = *state.names.get(name).ok_or_else(|| not_found(name))?;
        Ok(Arc::new(Handle {
            disk: self.clone(),
            id,
            epoch: state.epoch,
        }))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        let fault = state.step(true)?;
        if state.names.contains_key(name) {
            let text = format!("the file {name} exists");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        if fault == Some(Fault::Error) {
            return Err(failure(Fault::Error));
        }
        // A full disk and a lost power leave a file that is shorter than requested.
        let len = len as usize;
        let filled = if fault.is_some() { len / 2 } else { len };
        let id = state.new_file(SimulatedFile::default());
        state.change_name(NameChange::Create(name.to_owned(), id));
        let number = state.next_write;
        state.next_write += 1;
        if let Some(file) = state.files.get_mut(&id) {
            file.write(0, &vec![0; filled], number);
        }
        if let Some(fault) = fault {
            return Err(failure(fault));
        }
        Ok(Arc::new(Handle {
            disk: self.clone(),
            id,
            epoch: state.epoch,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.plain_step(false)?;
        if !state.names.contains_key(from) {
            return Err(not_found(from));
        }
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.plain_step(false)?;
        if !state.names.contains_key(name) {
            return Err(not_found(name));
        }
        state.change_name(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(self.0.lock().free_bytes)
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.plain_step(false)?;
        state.pending_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct Handle {
    disk: SimulatedDisk,
    id: u64,
    epoch: u64,
}

impl Handle {
    fn with<T>(
        &self,
        needs_space: bool,
        act: impl FnOnce(&mut SimulatedFile, u64, Option<Fault>) -> T,
    ) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        if state.epoch != self.epoch {
            return Err(io::Error::other("this handle did not survive the crash"));
        }
        let fault = state.step(needs_space)?;
        let number = state.next_write;
        state.next_write += 1;
        let file = state
            .files
            .get_mut(&self.id)
            .ok_or_else(|| io::Error::other("the file is gone"))?;
        let answer = act(file, number, fault);
        fault.map_or(Ok(answer), |fault| Err(failure(fault)))
    }
}

impl DiskFile for Handle {
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        self.with(false, |file, _, _| {
            let from = (at as usize).min(file.current.len());
            let count = out.len().min(file.current.len() - from);
            out[..count].copy_from_slice(&file.current[from..from + count]);
            count
        })
    }

    fn write_all_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let grows = {
            let state = self.disk.0.lock();
            state
                .files
                .get(&self.id)
                .is_some_and(|file| file.current.len() < at as usize + bytes.len())
        };
        self.with(grows, |file, number, fault| {
            let done = if fault.is_some() {
                bytes.len() / 2
            } else {
                bytes.len()
            };
            file.write(at as usize, &bytes[..done], number);
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(false, |file, _, fault| match fault {
            None => file.sync(),
            // The kernel marks the pages clean all the same: no later flush writes them.
            Some(Fault::Error) => file.dirty.clear(),
            Some(_) => {}
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(false, |file, _, _| file.current.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let grows = len > self.len()?;
        self.with(grows, |file, number, fault| {
            if fault.is_none() {
                file.set_len(len as usize, number);
            }
        })
    }
}

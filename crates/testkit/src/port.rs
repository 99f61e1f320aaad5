//! Ports for servers, each of one owner for as long as it is held, also while its server is down.
//!
//! They lie below the range from which the kernel takes ports for outgoing connections: in that
//! range a client that tries again and again to reach a dead server would some time connect to
//! itself, and the server could not come back to its port.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const LOWEST: u32 = 15_000;
/// Where the kernel's range starts unless it says otherwise.
const USUAL_END: u32 = 32_768;

/// A port on 127.0.0.1 that no other user of this kit takes.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Its lock says that the port is taken; the kernel drops it with this process.
    _lock: File,
}

impl Port {
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Takes a port on which nothing listens.
    #[must_use]
    pub fn take() -> Self {
        static TURN: AtomicU32 = AtomicU32::new(0);
        let count = end_of_range() - LOWEST;
        let start = std::process::id().wrapping_mul(7919);
        for _ in 0..count {
            let turn = TURN.fetch_add(1, Ordering::Relaxed);
            let number = LOWEST + start.wrapping_add(turn) % count;
            let number = u16::try_from(number).expect("the range ends below 65536");
            if let Some(port) = Self::try_take(number) {
                return port;
            }
        }
        panic!("no free port between {LOWEST} and {}", LOWEST + count);
    }

    fn try_take(number: u16) -> Option<Self> {
        let path = locks_folder().join(number.to_string());
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("opening {}: {error}", path.display()));
        lock.try_lock().ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self {
            number,
            _lock: lock,
        })
    }
}

fn locks_folder() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("onelog-testkit-ports-{user}"));
    fs::create_dir_all(&folder).expect("a folder for temporary files can be made");
    folder
}

fn end_of_range() -> u32 {
    let lowest_outgoing = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok());
    // A machine that has nearly all ports in that range: ours lie in it then.
    lowest_outgoing
        .filter(|end| *end > LOWEST + 1000 && *end < 60_000)
        .unwrap_or(USUAL_END)
}

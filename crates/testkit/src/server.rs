//! What every server can do.

use std::fmt::Debug;
use std::path::PathBuf;

use crate::run_folder;

/// A running server that belongs to a test; dropping it kills it and removes its data.
///
/// All calls wait until what they say is so. A cluster does everything with all its nodes.
pub trait Server: Debug + Send + Sync {
    /// Where to reach it: `postgres://…`, `mysql://…`, `redis://…`, `http://…`.
    fn url(&self) -> String;

    /// The port on 127.0.0.1; the same for the server's whole life.
    fn port(&self) -> u16;

    /// The process id of the server, or of the parent of its processes. Panics when it is down.
    fn pid(&self) -> u32;

    /// Kills all its processes at once (SIGKILL); nothing happens when it is down.
    fn kill(&self);

    /// Ends it gracefully: it writes out what it holds.
    fn stop(&self);

    /// Starts a killed or stopped server again on the same port and data, until it answers.
    fn start_again(&self);

    /// Stops all its processes where they are (SIGSTOP): connections stay open, nothing answers.
    fn pause(&self);

    /// Lets a paused server go on.
    fn resume(&self);

    /// Copies the data of a server that is down.
    fn save_data(&self) -> SavedData;

    /// Gives a server that is down an older state of its data.
    fn restore_data(&self, saved: &SavedData);
}

/// A copy of a server's data; dropping it removes it.
#[derive(Debug)]
pub struct SavedData {
    /// One for each node of the server.
    pub(crate) folders: Vec<PathBuf>,
}

impl Drop for SavedData {
    fn drop(&mut self) {
        for folder in &self.folders {
            run_folder::remove(folder);
        }
    }
}

/// Implements [`Server`] for a type that holds one `node`, except `url`.
macro_rules! serve_by_node {
    () => {
        fn port(&self) -> u16 {
            self.node.port()
        }
        fn pid(&self) -> u32 {
            self.node.pid()
        }
        fn kill(&self) {
            self.node.kill();
        }
        fn stop(&self) {
            self.node.stop();
        }
        fn start_again(&self) {
            self.node.start_again();
        }
        fn pause(&self) {
            self.node.pause();
        }
        fn resume(&self) {
            self.node.resume();
        }
        fn save_data(&self) -> $crate::SavedData {
            $crate::SavedData {
                folders: vec![self.node.save_data()],
            }
        }
        fn restore_data(&self, saved: &$crate::SavedData) {
            let [folder] = saved.folders.as_slice() else {
                panic!("this data is a cluster's");
            };
            self.node.restore_data(folder);
        }
    };
}
pub(crate) use serve_by_node;

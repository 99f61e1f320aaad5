//! SIGINT and SIGTERM during the demonstration: a signal in the middle of a part leaves neither a
//! process nor a folder behind; one while the server only goes on ends it in order.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::error::DemoError;

/// The exit status after a signal, as shells report an interrupt.
const STATUS_INTERRUPTED: i32 = 130;

/// Reports the first signal once `wait` is called; before that a signal ends the process.
pub struct Interrupted {
    waiting: Arc<Mutex<Option<oneshot::Sender<()>>>>,
}

impl Interrupted {
    pub fn wait(&self, runtime: &Runtime) {
        let (sender, receiver) = oneshot::channel();
        *self.waiting.lock() = Some(sender);
        // The sender lives as long as the watching task, which lives as long as the process.
        let _ = runtime.block_on(receiver);
    }
}

/// Watches for signals. One that nothing waits for runs `clean`, removes the folder and exits.
pub fn end_on_signal(
    runtime: &Runtime,
    folder: &Path,
    clean: impl Fn() + Send + Sync + 'static,
) -> Result<Interrupted, DemoError> {
    let _inside = runtime.enter();
    let take = |kind| {
        signal(kind).map_err(|error| DemoError::Failed(format!("cannot wait for signals: {error}")))
    };
    let mut terminate = take(SignalKind::terminate())?;
    let mut interrupt = take(SignalKind::interrupt())?;
    let waiting: Arc<Mutex<Option<oneshot::Sender<()>>>> = Arc::default();
    let watched = Arc::clone(&waiting);
    let folder = folder.to_owned();
    let clean = Arc::new(clean);
    runtime.spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let sender = watched.lock().take();
            match sender.map(|sender| sender.send(())) {
                Some(Ok(())) => {}
                _ => {
                    // Cleaning may block, which a task must not.
                    let (clean, folder) = (Arc::clone(&clean), folder.clone());
                    std::thread::spawn(move || {
                        clean();
                        let _ = std::fs::remove_dir_all(&folder);
                        std::process::exit(STATUS_INTERRUPTED);
                    });
                }
            }
        }
    });
    Ok(Interrupted { waiting })
}

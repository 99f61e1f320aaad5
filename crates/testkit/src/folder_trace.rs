//! Which folders a piece of code makes, and which of them a loss of power would take: those whose
//! holder was not flushed afterwards. What is traced by `onelog-log` on this thread is looked at.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// What happened to folders while something ran.
#[derive(Clone, Debug, Default)]
pub struct FolderTrace {
    pub made: BTreeSet<PathBuf>,
    /// Those that would be gone.
    pub at_risk: BTreeSet<PathBuf>,
}

/// Runs something on this thread; answers what it did to folders.
pub fn trace_folders<R>(run: impl FnOnce() -> R) -> (R, FolderTrace) {
    let trace = Arc::default();
    // With one dispatcher alone, an event that another thread meets first counts as wanted by none.
    let _other = Dispatch::new(Tracer(Arc::default()));
    let result = tracing::subscriber::with_default(Tracer(Arc::clone(&trace)), run);
    let trace = trace.lock().expect("no test panics while it holds it");
    (result, trace.clone())
}

struct Tracer(Arc<Mutex<FolderTrace>>);

#[derive(Default)]
struct Fields {
    message: String,
    folder: PathBuf,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            "folder" => self.folder = text.into(),
            _ => {}
        }
    }
}

impl Subscriber for Tracer {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut trace = self.0.lock().expect("no test panics while it holds it");
        let folder = fields.folder;
        match fields.message.as_str() {
            "made a folder" => {
                trace.made.insert(folder.clone());
                trace.at_risk.insert(folder);
            }
            "flushed a folder" => {
                trace.at_risk.retain(|made| made.parent() != Some(&folder));
            }
            _ => {}
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

//! The hand-over of requests to the engine's thread, in every order of its threads' steps: the
//! queue's own code, on the primitives of a model checker. A client that is never answered is a
//! deadlock, which the checker finds.

#![allow(clippy::unwrap_used, clippy::panic)]
// The queue is the node's; what its driver uses besides is not used here.
#![allow(dead_code)]

#[path = "../src/queue.rs"]
mod queue;

/// What `src/sync.rs` has, for the checker.
mod sync {
    use std::collections::VecDeque;
    use std::fmt;

    /// Its counts are not what is checked: each would be one more place to switch threads at.
    pub(crate) use std::sync::Arc;

    use loom::sync::{Condvar, Mutex, RwLockReadGuard, RwLockWriteGuard};

    /// A lock that is not poisoned.
    #[derive(Debug)]
    pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap()
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap()
        }
    }

    pub(crate) enum TrySendError<T> {
        Full(T),
        Disconnected(T),
    }

    /// A bounded channel as crossbeam's: what is inside stays there until the last handle is gone,
    /// also when nothing can take it any more.
    struct Channel<T> {
        state: Mutex<State<T>>,
        changed: Condvar,
        places: usize,
    }

    struct State<T> {
        items: VecDeque<T>,
        has_receiver: bool,
    }

    pub(crate) struct Sender<T>(Arc<Channel<T>>);
    pub(crate) struct Receiver<T>(Arc<Channel<T>>);

    pub(crate) fn bounded<T>(places: usize) -> (Sender<T>, Receiver<T>) {
        let channel = Arc::new(Channel {
            state: Mutex::new(State {
                items: VecDeque::new(),
                has_receiver: true,
            }),
            changed: Condvar::new(),
            places,
        });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Sender<T> {
        pub(crate) fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
            let mut state = self.0.state.lock().unwrap();
            if !state.has_receiver {
                return Err(TrySendError::Disconnected(item));
            }
            if state.items.len() == self.0.places {
                return Err(TrySendError::Full(item));
            }
            state.items.push_back(item);
            Ok(())
        }

        pub(crate) fn send(&self, item: T) -> Result<(), T> {
            let mut state = self.0.state.lock().unwrap();
            while state.has_receiver && state.items.len() == self.0.places {
                state = self.0.changed.wait(state).unwrap();
            }
            if !state.has_receiver {
                return Err(item);
            }
            state.items.push_back(item);
            Ok(())
        }

        pub(crate) fn len(&self) -> usize {
            self.0.state.lock().unwrap().items.len()
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn try_recv(&self) -> Option<T> {
            let taken = self.0.state.lock().unwrap().items.pop_front();
            self.0.changed.notify_all();
            taken
        }

        pub(crate) fn try_iter(&self) -> impl Iterator<Item = T> {
            std::iter::from_fn(|| self.try_recv())
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.state.lock().unwrap().has_receiver = false;
            self.0.changed.notify_all();
        }
    }

    impl<T> fmt::Debug for Sender<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Sender")
        }
    }

    impl<T> fmt::Debug for Receiver<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Receiver")
        }
    }
}

use loom::sync::{Condvar, Mutex};
use loom::thread;
use queue::{Entrance, Exit, NotQueued, queue};
use sync::Arc;

/// The fault that these stories are about needs two.
const PREEMPTIONS_MAX: usize = 3;

/// What a client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Decided,
    Stopped,
    /// The request was dropped: its ticket fails.
    Gone,
}

type Answer = (Mutex<Option<Heard>>, Condvar);

/// A request on its way; its client waits for the answer.
#[derive(Debug)]
struct Request(Arc<Answer>);

#[derive(Debug)]
struct Ticket(Arc<Answer>);

impl Request {
    fn new() -> (Self, Ticket) {
        let answer = Arc::new((Mutex::new(None), Condvar::new()));
        (Self(Arc::clone(&answer)), Ticket(answer))
    }

    fn answer(&self, heard: Heard) {
        self.0.0.lock().unwrap().get_or_insert(heard);
        self.0.1.notify_all();
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.answer(Heard::Gone);
    }
}

impl Ticket {
    fn wait(self) -> Heard {
        let mut heard = self.0.0.lock().unwrap();
        loop {
            if let Some(heard) = *heard {
                return heard;
            }
            heard = self.0.1.wait(heard).unwrap();
        }
    }
}

fn request(entrance: &Entrance<Request>) -> Result<Heard, NotQueued> {
    let (request, ticket) = Request::new();
    entrance.try_send(request).map_err(|(why, _)| why)?;
    Ok(ticket.wait())
}

/// Runs a story in every order that switches threads against their will at most so many times.
fn in_every_order(story: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(story);
}

/// Two clients that request something while `engine` ends; what each of them hears.
fn clients_beside(places: usize, engine: fn(Exit<Request>)) -> [Result<Heard, NotQueued>; 2] {
    let (entrance, exit) = queue(places);
    let entrance = Arc::new(entrance);
    let engine = thread::spawn(move || engine(exit));
    let other = {
        let entrance = Arc::clone(&entrance);
        thread::spawn(move || request(&entrance))
    };
    let heard = [request(&entrance), other.join().unwrap()];
    engine.join().unwrap();
    // The handles live on: nothing is freed because the last of them is gone.
    assert_eq!(entrance.len(), 0);
    heard
}

/// Decides what comes first, then stops and says so to the rest, as the driver does.
fn serve_and_stop(exit: Exit<Request>) {
    if let Some(request) = exit.receiver().try_recv() {
        request.answer(Heard::Decided);
    }
    for request in exit.close() {
        request.answer(Heard::Stopped);
    }
}

#[test]
fn each_request_that_enters_is_answered_whatever_the_moment_of_the_stop() {
    in_every_order(|| {
        for heard in clients_beside(2, serve_and_stop) {
            let expected = [
                Ok(Heard::Decided),
                Ok(Heard::Stopped),
                Err(NotQueued::Closed),
            ];
            assert!(expected.contains(&heard), "{heard:?}");
        }
    });
}

#[test]
fn a_ticket_fails_when_the_engine_is_gone_without_a_word() {
    in_every_order(|| {
        for heard in clients_beside(1, drop) {
            let expected = [
                Ok(Heard::Gone),
                Err(NotQueued::Closed),
                Err(NotQueued::Full),
            ];
            assert!(expected.contains(&heard), "{heard:?}");
        }
    });
}

#[test]
fn the_wish_to_stop_never_waits_for_room_in_the_queue_of_an_engine_that_has_ended() {
    in_every_order(|| {
        let (entrance, exit) = queue(1);
        assert_eq!(entrance.try_send(1), Ok(()));
        let engine = thread::spawn(move || drop(exit.close()));
        let _ = entrance.send(2);
        engine.join().unwrap();
        assert_eq!(entrance.try_send(3), Err((NotQueued::Closed, 3)));
    });
}

#[test]
fn what_is_inside_when_the_queue_closes_is_handed_out_and_nothing_enters_behind() {
    in_every_order(|| {
        let (entrance, exit) = queue(2);
        assert_eq!(entrance.try_send(1), Ok(()));
        assert_eq!(entrance.try_send(2), Ok(()));
        assert_eq!(entrance.try_send(3), Err((NotQueued::Full, 3)));
        assert_eq!(exit.close(), [1, 2]);
        assert_eq!(entrance.try_send(4), Err((NotQueued::Closed, 4)));
        assert_eq!(entrance.len(), 0);
    });
}

#[test]
fn what_is_inside_is_dropped_with_the_exit_although_handles_live() {
    in_every_order(|| {
        let (entrance, exit) = queue(2);
        let item = std::sync::Arc::new(());
        assert_eq!(entrance.try_send(std::sync::Arc::clone(&item)), Ok(()));
        drop(exit);
        assert_eq!(std::sync::Arc::strong_count(&item), 1);
        let refused = entrance.try_send(std::sync::Arc::clone(&item));
        assert_eq!(refused, Err((NotQueued::Closed, item)));
    });
}

//! Connections that other nodes make to this one: greeted, judged, registered, served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use onelog_record::NodeId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::connection::{self, Certificates, Open};
use crate::error::ConnectionError;
use crate::frame::{Frame, FrameKind};
use crate::greeting::{Greeting, Refusal};
use crate::lane::Lane;
use crate::limits::{GREETINGS_MAX, INCOMING_MAX};
use crate::link::Link;
use crate::request::{Failure, Held, Reply};
use crate::shared::{Incoming, IncomingTable, Shared};
use crate::tls;

/// When no connection can be accepted (too many open files), the next try comes after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(GREETINGS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((tcp, from)) => {
                tokio::spawn(serve(Arc::clone(&shared), tcp, from, permit));
            }
            Err(error) => {
                let text = format!("a connection of another node could not be accepted: {error}");
                if shared.seen.is_new(&text) {
                    tracing::warn!("{text}");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    tcp: TcpStream,
    from: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let greeted = greet(&shared, tcp).await;
    drop(permit);
    let Greeted {
        open,
        theirs,
        ours,
        registered,
    } = match greeted {
        Ok(greeted) => greeted,
        Err(error) => return not_greeted(&shared, &error, from),
    };
    let link = Arc::clone(&registered.link);
    shared.close_if_greeted_otherwise(&link, ours.log_id);
    shared.wake(theirs.from);
    let held = Arc::default();
    let error = open
        .run(&link, &shared.timing, |frame| {
            take(&shared, &link, &held, frame)
        })
        .await;
    let (node, lane) = (theirs.from, theirs.lane.name());
    let text = format!("the connection of node {node} from {from}, lane {lane}, ended: {error}");
    let is_damaged = matches!(
        error,
        ConnectionError::Frame(_) | ConnectionError::Unexpected(_) | ConnectionError::Tls(_)
    );
    if is_damaged {
        shared.damaged.fetch_add(1, Ordering::Relaxed);
    }
    let is_fault = is_damaged || matches!(error, ConnectionError::Refused(_));
    if is_fault && shared.seen.is_new(&format!("{node} {lane} {error}")) {
        tracing::warn!("{text}");
    } else {
        tracing::debug!("{text}");
    }
}

fn not_greeted(shared: &Shared, error: &ConnectionError, from: SocketAddr) {
    // What a check does that only looks whether the port is open.
    if matches!(error, ConnectionError::NotGreeted) {
        return;
    }
    shared.refused.fetch_add(1, Ordering::Relaxed);
    if matches!(error, ConnectionError::Frame(_)) {
        shared.damaged.fetch_add(1, Ordering::Relaxed);
    }
    if shared.seen.is_new(&format!("{} {error}", from.ip())) {
        tracing::warn!("a connection from {from} is not taken: {error}");
    }
}

struct Greeted<'a> {
    open: Open,
    theirs: Greeting,
    ours: Greeting,
    registered: Registered<'a>,
}

async fn greet(shared: &Shared, tcp: TcpStream) -> Result<Greeted<'_>, ConnectionError> {
    let timing = &shared.timing;
    let configs = shared.tls.as_ref().map(|tls| tls.configs());
    let greeting = async {
        let (mut open, certificates) = connection::accept(tcp, configs).await?;
        let theirs = open.greeting().await;
        Ok::<_, ConnectionError>((open, certificates, theirs))
    };
    let greeting = timeout(timing.greeting, greeting).await;
    let (mut open, certificates, theirs) =
        greeting.map_err(|_| ConnectionError::NoGreeting(timing.greeting.as_millis()))??;
    let judged = match theirs {
        Ok(theirs) => {
            let ours = shared.greeting(theirs.from, theirs.lane);
            let registered = judge(shared, &theirs, &ours, certificates);
            registered.map(|registered| (theirs, ours, registered))
        }
        Err(ConnectionError::Refused(refusal)) => Err(refusal),
        Err(error) => return Err(error),
    };
    let (theirs, ours, registered) = match judged {
        Ok(judged) => judged,
        Err(refusal) => {
            open.refuse(&refusal, timing.greeting).await;
            return Err(refusal.into());
        }
    };
    timeout(timing.greeting, open.send(&ours.to_frame()))
        .await
        .map_err(|_| ConnectionError::Closed)??;
    Ok(Greeted {
        open,
        theirs,
        ours,
        registered,
    })
}

fn judge<'a>(
    shared: &'a Shared,
    theirs: &Greeting,
    ours: &Greeting,
    certificates: Option<Certificates>,
) -> Result<Registered<'a>, Refusal> {
    if shared.tls.is_some() {
        tls::check_name(certificates.as_deref(), theirs.from)?;
    }
    theirs.check(ours)?;
    // Before its address is known to the handler as that of the node.
    check_process(&mut shared.incoming.lock(), theirs)?;
    if !shared.handler.admits(theirs.from, &theirs.address) {
        return Err(Refusal::NotAdmitted(theirs.from));
    }
    let many = shared.incoming.lock().len();
    match many {
        many if many >= INCOMING_MAX => Err(Refusal::TooMany(many)),
        _ => Registered::new(shared, theirs),
    }
}

/// Of two processes with one number the one that is connected stays: which is the right one is not
/// known here, and the other one may have been started by mistake. A connection whose process is gone
/// ends at once, or by its silence.
fn check_process(incoming: &mut IncomingTable, theirs: &Greeting) -> Result<(), Refusal> {
    for lane in Lane::ALL {
        let Some(first) = incoming.get_mut(&(theirs.from, lane)) else {
            continue;
        };
        if first.process != theirs.process && !first.link.is_closed() {
            first.other = Some((theirs.address.clone(), Instant::now()));
            return Err(theirs.same_number(&first.address));
        }
    }
    Ok(())
}

fn take(
    shared: &Shared,
    link: &Arc<Link>,
    held: &Arc<Held>,
    frame: Frame,
) -> Result<(), ConnectionError> {
    let from: NodeId = link.node;
    match frame.kind {
        FrameKind::Message => shared.handler.message(from, frame.topic, frame.body),
        FrameKind::Request => match Reply::take(link, held, &frame) {
            Some(reply) => shared.handler.request(from, frame.topic, frame.body, reply),
            None => link.push_small(Failure::Busy.to_frame(frame.id)),
        },
        FrameKind::Ping => link.pinged(frame.id),
        FrameKind::Pong => link.ponged(frame.id),
        FrameKind::Refusal => return Err(Refusal::of_frame(&frame).into()),
        other => return Err(ConnectionError::Unexpected(other)),
    }
    Ok(())
}

/// A connection is in the register while its task lives.
struct Registered<'a> {
    shared: &'a Shared,
    link: Arc<Link>,
}

impl<'a> Registered<'a> {
    fn new(shared: &'a Shared, theirs: &Greeting) -> Result<Self, Refusal> {
        let (node, lane) = (theirs.from, theirs.lane);
        let link = Arc::new(Link::new(node, lane, theirs.log_id, Arc::default()));
        let new = Incoming {
            link: Arc::clone(&link),
            process: theirs.process,
            address: theirs.address.clone(),
            other: None,
        };
        let older = {
            let mut incoming = shared.incoming.lock();
            check_process(&mut incoming, theirs)?;
            incoming.insert((node, lane), new)
        };
        if let Some(older) = older {
            older
                .link
                .close("a newer connection of the same node replaces it");
        }
        Ok(Self { shared, link })
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.link.close("the connection was given up");
        let mut incoming = self.shared.incoming.lock();
        let key = (self.link.node, self.link.lane);
        if incoming
            .get(&key)
            .is_some_and(|other| Arc::ptr_eq(&other.link, &self.link))
        {
            incoming.remove(&key);
        }
    }
}

//! One connection: a request is read, answered, and only then comes the next one, so that answers
//! leave in the order of their requests.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::answer::{Fault, Outcome};
use crate::apis::PRODUCE;
use crate::door::Door;
use crate::handlers::{self, Scanned};
use crate::header::{self, FIXED_BYTES};
use crate::options::{
    IDLE_TIMEOUT, PRODUCE_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_FREE_BYTES, TRANSFER_TIMEOUT,
};

/// Why a connection ends before the client ends it.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Fault(#[from] Fault),
    #[error("a request of {is} bytes, the limit is {max}")]
    TooLarge { is: i64, max: usize },
    #[error("no request came in {IDLE_TIMEOUT:?}")]
    Idle,
    #[error("a request or an answer took longer than {TRANSFER_TIMEOUT:?}")]
    Slow,
    #[error("the server is shutting down")]
    Stopped,
}

/// A client's connection, and what is known of it from its earlier requests.
pub struct Connection {
    door: Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
    scanned: Scanned,
    _room: OwnedSemaphorePermit,
}

impl Connection {
    pub fn new(
        door: Arc<Door>,
        stream: TcpStream,
        peer: SocketAddr,
        room: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            door,
            stream,
            peer,
            scanned: Scanned::default(),
            _room: room,
        }
    }

    /// Serves it to its end.
    pub async fn run(mut self) {
        // Answers are small; waiting to fill a packet would only delay them.
        let _ = self.stream.set_nodelay(true);
        let peer = self.peer;
        match self.serve().await {
            Ok(()) => tracing::debug!("the Kafka client {peer} has left"),
            Err(Ended::Fault(fault)) => {
                tracing::warn!("the connection of the Kafka client {peer} is closed: {fault}");
            }
            Err(ended) => {
                tracing::debug!("the connection of the Kafka client {peer} is closed: {ended}");
            }
        }
    }

    async fn serve(&mut self) -> Result<(), Ended> {
        let door = Arc::clone(&self.door);
        loop {
            let Some(size) = self.next_size().await? else {
                return Ok(());
            };
            let mut first = [0; FIXED_BYTES];
            within(TRANSFER_TIMEOUT, self.stream.read_exact(&mut first)).await?;
            let max = match i16::from_be_bytes([first[0], first[1]]) {
                PRODUCE => PRODUCE_BYTES_MAX,
                _ => REQUEST_BYTES_MAX,
            };
            let size = match usize::try_from(size) {
                Ok(size) if (FIXED_BYTES..=max).contains(&size) => size,
                _ => {
                    let is = i64::from(size);
                    return Err(Ended::TooLarge { is, max });
                }
            };
            let counted = if size > REQUEST_FREE_BYTES { size } else { 0 };
            // The door's room is never closed, and more than one request.
            let permit = door.request_bytes.acquire_many(counted as u32).await;
            let frame = self.frame(&first, size).await?;
            let (header, body) = header::parse(frame).map_err(Fault::from)?;
            let outcome = tokio::select! {
                outcome = handlers::handle(self, &header, body) => outcome?,
                () = door.stopping() => return Err(Ended::Stopped),
            };
            drop(permit);
            if let Outcome::Answer(answer) = outcome {
                within(TRANSFER_TIMEOUT, self.stream.write_all(&answer.bytes)).await?;
            }
        }
    }

    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// How far its partitions were looked at.
    pub fn scanned(&mut self) -> &mut Scanned {
        &mut self.scanned
    }

    /// The size of the next request; `None` when the client has left.
    async fn next_size(&mut self) -> Result<Option<i32>, Ended> {
        let mut size = [0; 4];
        let stopping = self.door.stopping();
        let read = tokio::select! {
            read = tokio::time::timeout(IDLE_TIMEOUT, self.stream.read_exact(&mut size)) => read,
            () = stopping => return Err(Ended::Stopped),
        };
        match read {
            Ok(Ok(_)) => Ok(Some(i32::from_be_bytes(size))),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Ended::Idle),
        }
    }

    /// The whole frame, of which the beginning was read. Memory is taken as the bytes come.
    async fn frame(&mut self, first: &[u8], size: usize) -> Result<Bytes, Ended> {
        let mut frame = BytesMut::with_capacity(size.min(REQUEST_FREE_BYTES));
        frame.extend_from_slice(first);
        let rest = (size - first.len()) as u64;
        let mut rest = (&mut self.stream).take(rest);
        let reading = async {
            while frame.len() < size {
                if rest.read_buf(&mut frame).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(())
        };
        within(TRANSFER_TIMEOUT, reading).await?;
        Ok(frame.freeze())
    }
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> Result<T, Ended> {
    match tokio::time::timeout(time, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Ended::Slow),
    }
}

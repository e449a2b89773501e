//! What a connection has heard, and when it last did.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Instant,
};

use crate::{channel::connect::Io, util::write_through::write_through};

/// A byte stream that notes what comes.
pub(super) struct Listening {
    io: Box<dyn Io>,
    heard: Arc<Heard>,
}

#[derive(Debug)]
pub(super) struct Heard {
    bytes: AtomicU64,
    /// Microseconds since `base`.
    at: AtomicU64,
    base: Instant,
    /// The error that ended it, which HTTP/2 would tell only by its text.
    broke: OnceLock<io::Error>,
}

impl Listening {
    pub(super) fn new(io: Box<dyn Io>) -> (Self, Arc<Heard>) {
        let heard =
            Heard { bytes: AtomicU64::new(0), at: AtomicU64::new(0), base: Instant::now(), broke: OnceLock::new() };
        let heard = Arc::new(heard);
        (Self { io, heard: heard.clone() }, heard)
    }
}

impl Heard {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn broke(&self) -> Option<&io::Error> {
        self.broke.get()
    }

    /// How many bytes, and when the last came.
    pub(super) fn last(&self) -> (u64, Instant) {
        (self.bytes(), self.base + Duration::from_micros(self.at.load(Relaxed)))
    }
}

impl AsyncRead for Listening {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf).map_err(|error| {
            let text = io::Error::new(error.kind(), error.to_string());
            drop(self.heard.broke.set(error));
            text
        });
        let came = buf.filled().len() - before;
        if came > 0 {
            // One writer, and readers on its own task.
            self.heard.bytes.store(self.heard.bytes() + came as u64, Relaxed);
            self.heard.at.store(self.heard.base.elapsed().as_micros() as u64, Relaxed);
        }
        read
    }
}

write_through!(Listening);

//! A way to a server that can be cut, and that counts who is on it.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, reason = "each test uses its part")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// No byte moves, and nobody is told.
    Frozen,
    /// Nobody gets through, and who is on it is cut off.
    Cut,
}

#[derive(Debug)]
pub struct Link {
    port: u16,
    state: watch::Sender<State>,
    open: Arc<AtomicUsize>,
    moved: Arc<AtomicUsize>,
    came: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<()>,
}

impl Link {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (state, seen) = watch::channel(State::Open);
        let open = Arc::new(AtomicUsize::new(0));
        let moved = Arc::new(AtomicUsize::new(0));
        let came = Arc::new(Mutex::new(Vec::new()));
        let (counted, bytes, comes) = (open.clone(), moved.clone(), came.clone());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                comes.lock().unwrap().push(Instant::now());
                let (mut seen, counted, bytes) = (seen.clone(), counted.clone(), bytes.clone());
                tokio::spawn(async move {
                    counted.fetch_add(1, Ordering::SeqCst);
                    if let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await {
                        let ((a, b), (c, d)) = (near.into_split(), far.into_split());
                        let (one, two) = (seen.clone(), seen.clone());
                        tokio::select! {
                            () = copy(a, d, one, &bytes) => {}
                            () = copy(c, b, two, &bytes) => {}
                            _ = seen.wait_for(|state| *state == State::Cut) => {}
                        }
                    }
                    counted.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { port: own, state, open, moved, came, task }
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn freeze(&self) {
        self.state.send_replace(State::Frozen);
    }

    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    pub fn heal(&self) {
        self.state.send_replace(State::Open);
    }

    /// How many bytes went this way or that.
    pub fn moved(&self) -> usize {
        self.moved.load(Ordering::SeqCst)
    }

    /// When each connection came, those that were cut off at once too.
    pub fn came(&self) -> Vec<Instant> {
        self.came.lock().unwrap().clone()
    }

    /// How many connections there are.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    moved: &AtomicUsize,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        if state.wait_for(|state| *state == State::Open).await.is_err() || to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
        moved.fetch_add(n, Ordering::SeqCst);
    }
}

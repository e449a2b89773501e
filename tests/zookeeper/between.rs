//! What stands between a client and a real member: it counts requests, changes them, and cuts connections.

#![allow(unreachable_pub)]

use std::{
    future::ready,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Types of requests in ZooKeeper's protocol.
pub const GET_DATA: u32 = 4;
pub const GET_CHILDREN: u32 = 8;
pub const CREATE: u32 = 15;
pub const ADD_WATCH: u32 = 106;

use super::*;

type Done = Pin<Box<dyn Future<Output = ()> + Send>>;
type Meddle = Arc<dyn Fn(u32, &str, &mut [u8]) -> Done + Send + Sync>;

/// A request by its type and its path.
type Request = (u32, String);

/// A member of its own, as far as clients see.
pub struct Between {
    pub member: String,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<Mutex<usize>>,
    cut: watch::Sender<bool>,
    lost: Arc<Mutex<Option<Request>>>,
}

impl Between {
    /// Passes on all that comes.
    pub async fn new(real: &real::ZooKeeper) -> Self {
        Self::meddling(real, |_, _, _| Box::pin(ready(()))).await
    }

    /// Is a server before 3.6, by what it does not know.
    pub async fn old(real: &real::ZooKeeper) -> Self {
        let unknown = |kind, _: &str, frame: &mut [u8]| -> Done {
            if kind == ADD_WATCH {
                frame[4..8].copy_from_slice(&999u32.to_be_bytes());
            }
            Box::pin(ready(()))
        };
        Self::meddling(real, unknown).await
    }

    /// Does something with each request before it is passed on: by its type, its path and its bytes.
    pub async fn meddling(
        real: &real::ZooKeeper,
        meddle: impl Fn(u32, &str, &mut [u8]) -> Done + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let member = listener.local_addr().unwrap().to_string();
        let (requests, connections, lost) = Default::default();
        let (cut, until) = watch::channel(false);
        let between = Self { member, requests, connections, cut, lost };
        let (meddle, server): (Meddle, _) = (Arc::new(meddle), real.members()[0].clone());
        let (requests, connections) = (between.requests.clone(), between.connections.clone());
        let lost = between.lost.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                *connections.lock().unwrap() += 1;
                let mut until = until.clone();
                if *until.borrow() {
                    continue;
                }
                let server = TcpStream::connect(&server).await.unwrap();
                let passing = pass(client, server, requests.clone(), lost.clone(), meddle.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = passing => {}
                        _ = until.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        between
    }

    pub fn registry(&self, root: &str, session: Duration) -> ZooKeeper {
        ZooKeeper::builder([&self.member]).root(root).session(session).build().unwrap()
    }

    /// Ends all connections, and takes no new ones; or takes them again.
    pub fn cut(&self, cut: bool) {
        self.cut.send(cut).unwrap();
    }

    /// Swallows all that is answered on a connection from the next such request on.
    pub fn lose_answer(&self, kind: u32, path: &str) {
        *self.lost.lock().unwrap() = Some((kind, path.to_owned()));
    }

    /// How many connections were begun.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    /// The paths that requests of a type were for, since the last time.
    pub fn take(&self, kind: u32) -> Vec<String> {
        let mut requests = self.requests.lock().unwrap();
        let taken = requests.extract_if(.., |(asked, _)| *asked == kind);
        taken.map(|(_, path)| path).collect()
    }

    pub fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// A frame has its length before it; a request's second word is its type, and most have a path then.
async fn pass(
    client: TcpStream,
    server: TcpStream,
    requests: Arc<Mutex<Vec<Request>>>,
    lost: Arc<Mutex<Option<Request>>>,
    meddle: Meddle,
) -> std::io::Result<()> {
    let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
    let is_lost = Arc::new(AtomicBool::new(false));
    let swallows = is_lost.clone();
    let answering = async move {
        let mut some = vec![0; 16 << 10];
        loop {
            let much = answers.read(&mut some).await?;
            if much == 0 {
                return Ok(());
            }
            if !swallows.load(Ordering::SeqCst) {
                back.write_all(&some[..much]).await?;
            }
        }
    };
    let asking = async move {
        loop {
            let length = from.read_u32().await?;
            let mut frame = vec![0; length as usize];
            from.read_exact(&mut frame).await?;
            let word = |at: usize| frame.get(at..at + 4).map_or(0, |word| u32::from_be_bytes(word.try_into().unwrap()));
            let (kind, length_of_path) = (word(4), word(8) as usize);
            let path = frame.get(12..12 + length_of_path).unwrap_or_default();
            let path = String::from_utf8_lossy(path).into_owned();
            meddle(kind, &path, &mut frame).await;
            let request = (kind, path);
            if lost.lock().unwrap().take_if(|lost| *lost == request).is_some() {
                is_lost.store(true, Ordering::SeqCst);
            }
            requests.lock().unwrap().push(request);
            to.write_u32(length).await?;
            to.write_all(&frame).await?;
        }
    };
    let mut answering = std::pin::pin!(answering);
    tokio::select! {
        ended = &mut answering => ended,
        // What was answered before is still passed on.
        ended = asking => timeout(Duration::from_secs(1), answering).await.unwrap_or(ended),
    }
}

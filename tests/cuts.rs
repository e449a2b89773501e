//! Both ends over a network that breaks at any byte, and servers that say anything at all.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use callsign::{
    BackoffConfig, BoxFuture, Channel, EndpointKey, Result,
    balance::Adaptive,
    channel::{CallOptions, Connector, Io},
    testing::net::{Net, NetConnector},
};
use futures_util::{StreamExt, future::join_all, stream};
use proptest::prelude::*;
use support::{
    echo::{EchoClient, EchoRequest},
    endpoint, fed, frames,
    seen::Seen,
    serve,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{sleep, timeout},
};
use tonic::{Code, Request, Status};

/// Breaks each connection after so many bytes one way or the other, or lets them pass in pieces.
#[derive(Debug)]
struct Breaking {
    net: NetConnector,
    after: Arc<Mutex<VecDeque<(usize, usize)>>>,
    healed: Arc<AtomicBool>,
}

struct Breaks {
    io: Box<dyn Io>,
    read: usize,
    written: usize,
    healed: Arc<AtomicBool>,
}

impl Breaks {
    fn is_broken(&self) -> bool {
        (self.read == 0 || self.written == 0) && !self.healed.load(Relaxed)
    }

    /// How many bytes may still pass, of so many left.
    fn may_pass(&self, left: usize) -> usize {
        if self.healed.load(Relaxed) { usize::MAX } else { left }
    }
}

impl Connector for Breaking {
    fn connect<'a>(&'a self, to: &'a EndpointKey) -> BoxFuture<'a, Result<Box<dyn Io>>> {
        Box::pin(async move {
            let io = self.net.connect(to).await?;
            let (read, written) = self.after.lock().unwrap().pop_front().unwrap_or((usize::MAX, usize::MAX));
            Ok(Box::new(Breaks { io, read, written, healed: self.healed.clone() }) as Box<dyn Io>)
        })
    }
}

fn broken<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "it broke here")))
}

impl AsyncRead for Breaks {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_broken() {
            return broken();
        }
        let mut part = buf.take(self.may_pass(self.read).min(buf.remaining()));
        let read = Pin::new(&mut self.io).poll_read(cx, &mut part);
        let came = part.filled().len();
        // What `part` initialised is a prefix of what `buf` has unfilled.
        let bytes = part.filled().to_vec();
        buf.put_slice(&bytes);
        self.read = self.read.saturating_sub(came);
        read
    }
}

impl AsyncWrite for Breaks {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_broken() {
            return broken();
        }
        let most = self.may_pass(self.written).min(buf.len());
        let wrote = Pin::new(&mut self.io).poll_write(cx, &buf[..most]);
        if let Poll::Ready(Ok(wrote)) = wrote {
            self.written = self.written.saturating_sub(wrote);
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// One call of each kind, each reply checked.
async fn call(channel: &Channel, n: usize) -> Result<(), Status> {
    let mut client = EchoClient::new(channel.clone());
    let payload = vec![n as u8; 1 + n * 977 % 40_000];
    let one = EchoRequest { payload: payload.clone(), replies: 3, ..EchoRequest::default() };
    match n % 3 {
        0 => {
            let mut request = Request::new(one);
            request.extensions_mut().insert(CallOptions::new().wait_for_ready(true));
            assert_eq!(client.unary(request).await?.into_inner().payload, payload);
        }
        1 => {
            let mut replies = client.server_stream(one).await?.into_inner();
            for _ in 0..3 {
                assert_eq!(replies.message().await?.unwrap().payload, payload);
            }
            assert!(replies.message().await?.is_none());
        }
        _ => {
            let requests = stream::iter((0..3).map(move |_| one.clone()));
            assert_eq!(client.client_stream(requests).await?.into_inner().payload, payload.repeat(3));
        }
    }
    Ok(())
}

/// A call that is given up after a while, or whose caller panics: tells whether it came to its end before.
async fn call_until(channel: Channel, n: usize, millis: u64, panics: bool) -> Option<Result<(), Status>> {
    let caller = tokio::spawn(async move {
        tokio::select! {
            ended = call(&channel, n) => Some(ended),
            () = sleep(Duration::from_millis(millis)) => {
                // Without the hook, which would print it.
                if panics { std::panic::resume_unwind(Box::new("as told")) }
                None
            }
        }
    });
    let ended = timeout(Duration::from_secs(6), caller).await.expect("a call ends by its deadline");
    ended.unwrap_or_else(|error| {
        assert!(panics && error.is_panic(), "{error}");
        None
    })
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_breaks_each_call_ends_and_then_all_is_well(
        cuts in prop::collection::vec((1usize..60_000, 1usize..60_000), 1..12),
        early in prop::collection::vec((1usize..200, 1usize..200), 0..6),
        given_up in prop::collection::vec((0u64..40, any::<bool>()), 7),
        way in 0u64..10,
    ) {
        run(async move {
            let net = Net::new();
            let endpoints = ["a", "b"].map(|id| {
                serve(&net, id, &format!("{id}:1"));
                endpoint(id, &format!("{id}:1"))
            });
            let (builder, _feed) = fed(&net, &endpoints);
            let after = Arc::new(Mutex::new(early.into_iter().chain(cuts).collect()));
            let healed = Arc::new(AtomicBool::new(false));
            let connector = Breaking { net: net.connector(), after, healed: healed.clone() };
            let backoff = BackoffConfig::new(Duration::from_millis(10), Duration::from_millis(100));
            let builder = builder.connector(connector).backoff(backoff).timeout(Duration::from_secs(5));
            let seen = Seen::of(Adaptive::default());
            let channel = builder.policy(seen.policy()).connect_lazy().unwrap();
            // Some end while they wait, some on their way, some when all is said.
            ["a:1", "b:1"].iter().for_each(|address| net.delay(address, Duration::from_millis(way)));
            let mut nodes = HashMap::new();
            for round in 0..12 {
                let calls = (0..6).map(|n| {
                    let n = round * 6 + n;
                    // Half of them, by turns.
                    let (millis, panics) = given_up[n % 7];
                    call_until(channel.clone(), n, if n % 2 == 0 { 60_000 } else { millis }, panics)
                });
                for ended in join_all(calls).await {
                    if let Some(Err(status)) = ended {
                        assert!([Code::Unavailable, Code::DeadlineExceeded].contains(&status.code()), "{status}");
                    }
                }
                sleep(Duration::from_millis(50)).await;
                nodes.extend(seen.nodes().into_iter().map(|node| (node.endpoint().key().clone(), node)));
            }
            healed.store(true, Relaxed);
            sleep(Duration::from_secs(1)).await;
            for n in 0..12 {
                call(&channel, n).await.unwrap();
            }
            for node in nodes.values() {
                assert_eq!(node.load().in_flight(), 0, "whatever ends a call, it is counted out: {}", node.endpoint());
            }
            drop(channel);
            sleep(Duration::from_secs(5)).await;
            assert_eq!((net.open("a:1"), net.open("b:1")), (0, 0));
        });
    }

    #[test]
    fn whatever_a_server_says_each_call_ends(
        greeting in prop::collection::vec(any::<u8>(), 0..40),
        said in prop::collection::vec(
            (0u8..12, any::<u8>(), 0u32..4, prop::collection::vec(any::<u8>(), 0..80)), 1..20),
    ) {
        run(async move {
            let net = Net::new();
            let mut listener = net.listen("a:1");
            tokio::spawn(async move {
                while let Some(Ok(mut io)) = listener.next().await {
                    let (greeting, said) = (greeting.clone(), said.clone());
                    tokio::spawn(async move {
                        // Sometimes no greeting at all, so that calls are made.
                        if greeting.len() < 30 {
                            io.write_all(&frames::frame(frames::SETTINGS, 0, 0, &[])).await?;
                        } else {
                            io.write_all(&greeting).await?;
                        }
                        let mut heard = vec![0; 4096];
                        for (kind, flags, id, payload) in said {
                            let _ = timeout(Duration::from_millis(5), io.read(&mut heard)).await;
                            io.write_all(&frames::frame(kind, flags, id, &payload)).await?;
                        }
                        sleep(Duration::from_secs(60)).await;
                        Ok::<_, io::Error>(())
                    });
                }
            });
            let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
            let seen = Seen::of(Adaptive::default());
            let channel = builder.timeout(Duration::from_secs(2)).policy(seen.policy()).connect_lazy().unwrap();
            for n in 0..6 {
                let ended = timeout(Duration::from_secs(4), call(&channel, n)).await;
                prop_assert!(ended.is_ok(), "a call ends by its deadline");
                prop_assert!(seen.nodes().iter().all(|node| node.load().in_flight() == 0), "it is counted out");
            }
            Ok(())
        })?;
    }
}

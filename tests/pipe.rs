//! Flow control over a long way: windows grow to what the way holds, and memory stays bounded.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use callsign::{
    BoxFuture, Channel, EndpointKey, Result,
    channel::{Connector, Io},
    testing::net::Net,
};
use support::{
    echo::{EchoClient, EchoRequest},
    endpoint, fed, serve,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex, split},
    sync::mpsc,
    time::{Instant, sleep_until},
};

const ONE_WAY: Duration = Duration::from_millis(25);

/// Bytes a second: of a line of 1 Gbit/s.
const WIDTH: f64 = 125e6;

/// A network whose every byte is on its way for so long, and which carries so many a second.
#[derive(Debug)]
struct Far(callsign::testing::net::NetConnector);

impl Connector for Far {
    fn connect<'a>(&'a self, to: &'a EndpointKey) -> BoxFuture<'a, Result<Box<dyn Io>>> {
        Box::pin(async move {
            let (near, relay) = duplex(1 << 20);
            let (from_near, to_near) = split(relay);
            let (from_far, to_far) = split(self.0.connect(to).await?);
            carry(from_near, to_far);
            carry(from_far, to_near);
            Ok(Box::new(near) as Box<dyn Io>)
        })
    }
}

fn carry(mut from: impl AsyncRead + Unpin + Send + 'static, mut to: impl AsyncWrite + Unpin + Send + 'static) {
    let (sent, mut under_way) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut chunk, mut free) = (vec![0; 64 << 10], Instant::now());
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            free = free.max(Instant::now()) + Duration::from_secs_f64(count as f64 / WIDTH);
            if sent.send((free + ONE_WAY, chunk[..count].to_vec())).is_err() {
                return;
            }
            // The line takes in no more than it can send, to the grain of timers.
            sleep_until(free.checked_sub(Duration::from_millis(5)).unwrap_or(free)).await;
        }
    });
    tokio::spawn(async move {
        while let Some((due, chunk)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    });
}

async fn far(max_window: u32) -> Channel {
    let net = Net::new();
    serve(&net, "a", "a:1");
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    builder.connector(Far(net.connector())).max_stream_window(max_window).connect().await.unwrap()
}

/// How long so many MiB take, read as they come.
async fn stream(channel: &Channel, mebibytes: u32) -> Duration {
    let request = EchoRequest { replies: mebibytes * 4, payload: vec![7; 256 << 10], ..EchoRequest::default() };
    let begun = Instant::now();
    let mut replies = EchoClient::new(channel.clone()).server_stream(request).await.unwrap().into_inner();
    let mut bytes = 0;
    while let Some(reply) = replies.message().await.unwrap() {
        bytes += reply.payload.len();
    }
    assert_eq!(bytes, (mebibytes as usize) << 20);
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_gibibyte_fills_a_way_of_50_ms() {
    // The line needs 8.6 s; windows that stay at 2 MiB would take 26 s.
    let took = stream(&far(16 << 20).await, 1024).await;
    assert!(took < Duration::from_millis(9_200), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_window_grows_no_further_than_it_may() {
    let took = stream(&far(2 << 20).await, 64).await;
    // 2 MiB each 50 ms.
    assert!((1.5..2.5).contains(&took.as_secs_f64()), "{took:?}");
}

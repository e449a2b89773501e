//! Servers that mean harm: what they cost is bounded, the errors are clear, and calls to others go on.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{fs, future::Future, io, time::Duration};

use callsign::{Channel, testing::net::Net};
use futures_util::StreamExt;
use support::{
    echo::{EchoClient, EchoRequest},
    endpoint, fed,
    frames::{ACK, CONTINUATION, DATA, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, frame},
    serve,
};
use tokio::{io::AsyncWriteExt, time::sleep};
use tonic::{Code, Status};

/// Frames of a flood, many in each write.
const FRAMES: usize = 200_000;

/// What a flood may leave in memory, with all that a test has besides.
const MEMORY: u64 = 48 << 20;

fn resident() -> u64 {
    let pages: u64 = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').nth(1)?.parse().ok())
        .unwrap_or_default();
    pages * 4096
}

async fn call(channel: &Channel) -> Result<String, Status> {
    let mut client = EchoClient::new(channel.clone());
    Ok(client.unary(EchoRequest::default()).await?.into_inner().server)
}

fn serve_raw<F>(net: &Net, serve: impl Fn(Raw) -> F + Send + Sync + 'static)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut listener = net.listen("bad:1");
    tokio::spawn(async move {
        while let Some(Ok(io)) = listener.next().await {
            if let Ok(connection) = Raw::accept(io).await {
                tokio::spawn(serve(connection));
            }
        }
    });
}

/// Lets a server flood its first call's connection with `flood` of the call's stream. Meanwhile a
/// good server's calls are answered; the flooded call ends within its deadline, as told.
async fn flooded(flood: impl Fn(u32) -> Vec<u8> + Clone + Send + Sync + 'static) -> Status {
    let before = resident();
    let net = Net::new();
    serve(&net, "good", "good:1");
    serve_raw(&net, move |mut raw| {
        let flood = flood.clone();
        async move {
            let id = raw.call().await?;
            let one = flood(id);
            let many = one.repeat(1 + 65_536 / one.len());
            let (mut reader, mut writer) = tokio::io::split(raw.0);
            // What comes back is read, so that the flood is held up by nothing.
            let drain = async {
                tokio::io::copy(&mut reader, &mut tokio::io::sink()).await?;
                Err(io::Error::other("it hung up"))
            };
            let flood = async {
                for _ in 0..=FRAMES * one.len() / many.len() {
                    writer.write_all(&many).await?;
                }
                sleep(Duration::from_secs(60)).await;
                Ok(())
            };
            tokio::select! { done = drain => done, done = flood => done }
        }
    });
    let (builder, _feed) = fed(&net, &[endpoint("bad", "bad:1")]);
    let bad = builder.timeout(Duration::from_secs(10)).connect().await.unwrap();
    let (builder, _other) = fed(&net, &[endpoint("good", "good:1")]);
    let good = builder.connect().await.unwrap();
    let called = tokio::spawn(async move { call(&bad).await.unwrap_err() });
    for _ in 0..1_000 {
        assert_eq!(call(&good).await.unwrap(), "good");
    }
    let status = called.await.unwrap();
    let grown = resident().saturating_sub(before);
    assert!(grown < MEMORY, "{} KiB more", grown >> 10);
    status
}

#[tokio::test(start_paused = true)]
async fn floods_that_http2_allows_are_borne_to_the_deadline() {
    for (name, flood) in [
        ("PING", frame(PING, 0, 0, &[7; 8])),
        ("PING that nobody asked for", frame(PING, ACK, 0, &[7; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("GOAWAY", frame(GOAWAY, 0, 0, &[[0x7f, 0xff, 0xff, 0xff], [0; 4]].concat())),
        ("unknown", frame(0xee, 0xff, 0, &[0; 64])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 1])),
    ] {
        let status = flooded(move |_| flood.clone()).await;
        // Some are too much for HTTP/2, which is as good.
        assert!([Code::DeadlineExceeded, Code::Unavailable].contains(&status.code()), "{name}: {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn floods_that_it_does_not_allow_end_the_connection() {
    let continuation = |id| {
        let mut all = frame(HEADERS, 0, id, &[]);
        all.extend(frame(CONTINUATION, 0, id, &[0x88]).repeat(1000));
        all
    };
    let status = flooded(continuation).await;
    assert!([Code::Internal, Code::Unavailable].contains(&status.code()), "CONTINUATION: {status}");
    let empty = |id| [frame(HEADERS, 4, id, &[0x88]), frame(DATA, 0, id, &[]).repeat(1000)].concat();
    let status = flooded(empty).await;
    assert!([Code::Unavailable, Code::Unknown].contains(&status.code()), "DATA: {status}");
    let status = flooded(|_| frame(WINDOW_UPDATE, 0, 0, &[0; 4])).await;
    assert_eq!(status.code(), Code::Unavailable, "WINDOW_UPDATE of 0: {status}");
    let status = flooded(|_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])).await;
    assert_eq!(status.code(), Code::Unavailable, "WINDOW_UPDATE past all bounds: {status}");
    // The whole request has been sent: what window its stream has is of no account any more.
    let status = flooded(|id| frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff])).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "WINDOW_UPDATE of the stream past all bounds: {status}");
    let status = flooded(|id| frame(RST_STREAM, 0, id + 100, &[0, 0, 0, 8])).await;
    assert_eq!(status.code(), Code::Unavailable, "RST_STREAM of streams that never were: {status}");
    // A few bytes that stand for a great many: a header of 4,000 bytes enters the table, and is
    // named again and again.
    let bomb = |id| {
        let mut fields = vec![0x88, 0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
        fields.extend([b'y'; 4_000]);
        fields.extend([0xbe; 12_000]);
        frame(HEADERS, 4, id, &fields)
    };
    let status = flooded(bomb).await;
    assert!([Code::Internal, Code::Unavailable].contains(&status.code()), "headers: {status}");
}

/// HTTP/2 lets a server announce a window, a table or a frame of any size: none of it costs us.
#[tokio::test(start_paused = true)]
async fn settings_as_large_as_can_be_are_harmless() {
    let net = Net::new();
    serve_raw(&net, |mut raw| async move {
        let most = [0x7f, 0xff, 0xff, 0xff];
        let all =
            [[0, 1].as_slice(), &most, &[0, 3], &most, &[0, 4], &most, &[0, 5, 0, 0xff, 0xff, 0xff], &[0, 6], &most];
        raw.write(SETTINGS, 0, 0, &all.concat()).await?;
        raw.call().await?;
        while raw.read().await.is_ok() {}
        Ok(())
    });
    let before = resident();
    let (builder, _feed) = fed(&net, &[endpoint("bad", "bad:1")]);
    let channel = builder.timeout(Duration::from_secs(1)).connect().await.unwrap();
    let status = call(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(resident().saturating_sub(before) < MEMORY);
}

/// MAX_CONCURRENT_STREAMS of 0: no call can be made, and none hangs.
#[tokio::test(start_paused = true)]
async fn a_server_that_allows_no_stream_gets_no_call() {
    let net = Net::new();
    serve(&net, "good", "good:1");
    let mut listener = net.listen("bad:1");
    tokio::spawn(async move {
        while let Some(Ok(mut io)) = listener.next().await {
            io.write_all(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0])).await.unwrap();
            tokio::spawn(async move { tokio::io::copy(&mut io, &mut tokio::io::sink()).await });
        }
    });
    let (builder, _feed) = fed(&net, &[endpoint("bad", "bad:1"), endpoint("good", "good:1")]);
    let channel = builder.connect().await.unwrap();
    sleep(Duration::from_secs(10)).await;
    for _ in 0..100 {
        assert_eq!(call(&channel).await.unwrap(), "good");
    }
}

//! What the channel makes of all that a server may send, proper or not: frame by frame.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{future::Future, time::Duration};

use callsign::{Channel, testing::net::Net};
use futures_util::StreamExt;
use support::{
    echo::{EchoClient, EchoReply, EchoRequest},
    endpoint, fed,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE,
    },
    serve,
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status};

/// A header by HPACK's simplest form: a literal that enters no table.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0, u8::try_from(name.len()).unwrap()];
    field.extend(name.as_bytes());
    // Lengths from 127 on go on in further bytes.
    match value.len() {
        short @ 0..127 => field.push(short as u8),
        long => {
            field.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                field.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            field.push(rest as u8);
        }
    }
    field.extend(value.as_bytes());
    field
}

fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| header(name, value)).collect()
}

const OK: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];

/// An empty message in gRPC's framing.
const EMPTY: &[u8] = &[0; 5];

/// Serves raw frames at `a:1`: `answer` gets each connection, after its preface.
fn raw<F>(net: &Net, answer: impl Fn(Raw) -> F + Send + Sync + 'static)
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let mut listener = net.listen("a:1");
    tokio::spawn(async move {
        while let Some(Ok(io)) = listener.next().await {
            if let Ok(connection) = Raw::accept(io).await {
                tokio::spawn(answer(connection));
            }
        }
    });
}

/// Answers a call as it should be.
async fn answer(raw: &mut Raw, id: u32) -> std::io::Result<()> {
    raw.write(HEADERS, END_HEADERS, id, &headers(OK)).await?;
    raw.write(DATA, 0, id, EMPTY).await?;
    raw.write(HEADERS, END_HEADERS | END_STREAM, id, &headers(FINE)).await
}

async fn call(channel: &Channel) -> Result<EchoReply, Status> {
    let mut client = EchoClient::new(channel.clone());
    let called = client.unary(EchoRequest::default());
    timeout(Duration::from_secs(60), called).await.expect("a call ends").map(tonic::Response::into_inner)
}

fn channel(net: &Net) -> Channel {
    fed(net, &[endpoint("a", "a:1")]).0.connect_lazy().unwrap()
}

/// What one call gets from a server that answers it with these frames of its stream.
async fn answered(frames: &[(u8, u8, Vec<u8>)]) -> Result<EchoReply, Status> {
    let net = Net::new();
    let frames = frames.to_vec();
    raw(&net, move |mut raw| {
        let frames = frames.clone();
        async move {
            loop {
                let id = raw.call().await?;
                for (kind, flags, payload) in &frames {
                    raw.write(*kind, *flags, id, payload).await?;
                }
            }
        }
    });
    call(&channel(&net)).await
}

fn head(fields: &[(&str, &str)], end: bool) -> (u8, u8, Vec<u8>) {
    (HEADERS, END_HEADERS | if end { END_STREAM } else { 0 }, headers(fields))
}

fn message() -> (u8, u8, Vec<u8>) {
    (DATA, 0, EMPTY.to_vec())
}

const FINE: &[(&str, &str)] = &[("grpc-status", "0")];

#[tokio::test(start_paused = true)]
async fn a_proper_answer_is_one() {
    answered(&[head(OK, false), message(), head(FINE, true)]).await.unwrap();
    // In pieces, with padding of nothing, and with what is to be ignored in between.
    let pieces =
        [head(OK, false), (DATA, 0, vec![0, 0]), (DATA, 0, vec![]), (DATA, 0, vec![0, 0, 0]), head(FINE, true)];
    answered(&pieces).await.unwrap();
    answered(&[(0xbe, 0xff, vec![1; 100]), head(OK, false), message(), head(FINE, true)]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_said_early_is_skipped() {
    for early in ["100", "103"] {
        let early = head(&[(":status", early), ("link", "</style.css>")], false);
        answered(&[early.clone(), early, head(OK, false), message(), head(FINE, true)]).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_alone_are_an_answer() {
    let mut alone = OK.to_vec();
    alone.extend([("grpc-status", "5"), ("grpc-message", "no%20such%20thing%3A %E2%98%BA%ZZ")]);
    let status = answered(&[head(&alone, true)]).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().starts_with("no such thing: ☺"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn statuses_of_http_become_grpc_s() {
    let table = [
        ("400", Code::Internal),
        ("401", Code::Unauthenticated),
        ("403", Code::PermissionDenied),
        ("404", Code::Unimplemented),
        ("429", Code::Unavailable),
        ("502", Code::Unavailable),
        ("503", Code::Unavailable),
        ("504", Code::Unavailable),
        ("200", Code::Unknown),
        ("302", Code::Unknown),
        ("500", Code::Unknown),
    ];
    for (http, code) in table {
        let html = head(&[(":status", http), ("content-type", "text/html")], false);
        let status = answered(&[html, (DATA, END_STREAM, b"<html>busy</html>".to_vec())]).await.unwrap_err();
        assert_eq!(status.code(), code, "{http}: {status}");
        let why =
            format!("echo at a (a:1): the response is not gRPC: HTTP status {http} with content-type \"text/html\"");
        assert_eq!(status.message(), why);
    }
    // gRPC's own status goes before HTTP's.
    let both = [(":status", "503"), ("content-type", "application/grpc"), ("grpc-status", "8")];
    assert_eq!(answered(&[head(&both, true)]).await.unwrap_err().code(), Code::ResourceExhausted);
    let status = answered(&[head(&[(":status", "200")], true)]).await.unwrap_err();
    assert!(status.message().ends_with("HTTP status 200 without a content-type"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_missing_or_none_is_unknown() {
    let ends = [
        vec![head(OK, false), message(), head(&[("x", "y")], true)],
        vec![head(OK, false), (DATA, END_STREAM, EMPTY.to_vec())],
        vec![head(OK, false), message(), (DATA, END_STREAM, vec![])],
        vec![head(OK, true)],
    ];
    for frames in ends {
        let status = answered(&frames).await.unwrap_err();
        assert_eq!(status.code(), Code::Unknown, "{status}");
    }
    for status in ["abc", "-1", "99999999999999999999", "17"] {
        let status = answered(&[head(OK, false), message(), head(&[("grpc-status", status)], true)]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unknown, "{status}");
    }
    // A status without a message of the application's is no reply either.
    assert_eq!(answered(&[head(OK, false), head(FINE, true)]).await.unwrap_err().code(), Code::Internal);
}

#[tokio::test(start_paused = true)]
async fn resets_become_statuses_by_grpc_s_table() {
    let table = [
        (0x0, Code::Internal),
        (0x1, Code::Internal),
        (0x2, Code::Internal),
        (0x3, Code::Internal),
        (0x4, Code::Internal),
        (0x6, Code::Internal),
        (0x7, Code::Unavailable),
        (0x8, Code::Cancelled),
        (0x9, Code::Internal),
        (0xa, Code::Internal),
        (0xb, Code::ResourceExhausted),
        (0xc, Code::PermissionDenied),
    ];
    for (reason, code) in table {
        let reset = (RST_STREAM, 0, u32::to_be_bytes(reason).to_vec());
        for frames in [vec![reset.clone()], vec![head(OK, false), message(), reset]] {
            let status = answered(&frames).await.unwrap_err();
            assert_eq!(status.code(), code, "{reason}: {status}");
        }
    }
    // After its end a reset changes nothing: the server wants no more of the request.
    let late = [head(OK, false), message(), head(FINE, true), (RST_STREAM, 0, vec![0; 4])];
    answered(&late).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn frames_that_cannot_be_end_the_connection_and_no_other() {
    let net = Net::new();
    serve(&net, "b", "b:1");
    let cases: [(u8, u8, u32, Vec<u8>); 9] = [
        (DATA, 0, 0, vec![1]),
        (HEADERS, END_HEADERS, 0, headers(OK)),
        (HEADERS, END_HEADERS, 1, vec![0xff; 64]),
        (RST_STREAM, 0, 1, vec![0; 3]),
        (SETTINGS, 0, 0, vec![0; 5]),
        (SETTINGS, 0, 0, vec![0, 4, 0xff, 0xff, 0xff, 0xff]),
        (PING, 0, 0, vec![0; 7]),
        (WINDOW_UPDATE, 0, 0, vec![0; 4]),
        (CONTINUATION, END_HEADERS, 1, headers(OK)),
    ];
    for (kind, flags, id, payload) in cases {
        let sent = payload.clone();
        raw(&net, move |mut raw| {
            let payload = sent.clone();
            async move {
                raw.call().await?;
                raw.write(kind, flags, id, &payload).await?;
                while raw.read().await.is_ok() {}
                Ok(())
            }
        });
        let (builder, _feed) = fed(&net, &[endpoint("a", "a:1"), endpoint("b", "b:1")]);
        let channel = builder.policy("round_robin".parse().unwrap()).connect().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let results = [call(&channel).await, call(&channel).await, call(&channel).await, call(&channel).await];
        let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(failed.len(), 1, "{kind} {payload:?}: {failed:?}");
        let status = failed[0];
        assert_eq!(status.code(), Code::Unavailable, "{kind} {payload:?}: {status}");
        assert!(status.message().starts_with("echo at a (a:1): the connection broke"), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_may_be_large_but_not_without_end() {
    let large = "x".repeat(30_000);
    let fields = |count: usize| {
        let mut fields = OK.to_vec();
        fields.extend(vec![("x-large", large.as_str()); count]);
        headers(&fields)
    };
    let net = Net::new();
    let (fits, over) = (fields(2), fields(3));
    raw(&net, move |mut raw| {
        let blocks = [fits.clone(), over.clone(), headers(OK)];
        async move {
            for block in blocks {
                let id = raw.call().await?;
                let mut chunks = block.chunks(16_000).peekable();
                let mut kind = HEADERS;
                while let Some(chunk) = chunks.next() {
                    raw.write(kind, if chunks.peek().is_none() { END_HEADERS } else { 0 }, id, chunk).await?;
                    kind = CONTINUATION;
                }
                raw.write(DATA, 0, id, EMPTY).await?;
                raw.write(HEADERS, END_HEADERS | END_STREAM, id, &headers(FINE)).await?;
            }
            while raw.read().await.is_ok() {}
            Ok(())
        }
    });
    let channel = channel(&net);
    call(&channel).await.unwrap();
    let status = call(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    call(&channel).await.unwrap();
    assert_eq!(net.made("a:1"), 1, "the other calls of the connection go on");
}

#[tokio::test(start_paused = true)]
async fn a_goaway_tells_which_calls_were_not_seen() {
    let net = Net::new();
    raw(&net, |mut raw| async move {
        // The first call is answered; of the two then under way it has seen one.
        let first = raw.call().await?;
        answer(&mut raw, first).await?;
        let (seen, _unseen) = (raw.call().await?, raw.call().await?);
        raw.write(GOAWAY, 0, 0, &[seen.to_be_bytes(), [0; 4]].concat()).await?;
        sleep(Duration::from_secs(1)).await;
        answer(&mut raw, seen).await?;
        while raw.read().await.is_ok() {}
        Ok(())
    });
    let channel = channel(&net);
    call(&channel).await.unwrap();
    // The one that was not seen goes to the next connection, as its first call.
    let (one, other) = tokio::join!(call(&channel), call(&channel));
    one.unwrap();
    other.unwrap();
    assert_eq!(net.made("a:1"), 2);
}

#[tokio::test(start_paused = true)]
async fn calls_that_cross_a_connection_s_end_again_and_again_are_not_lost() {
    let net = Net::new();
    raw(&net, |mut raw| async move {
        // An end in good order after one answer, which all the other calls cross.
        let first = raw.call().await?;
        answer(&mut raw, first).await?;
        sleep(Duration::from_millis(10)).await;
        raw.write(GOAWAY, 0, 0, &[first.to_be_bytes(), [0; 4]].concat()).await?;
        while raw.read().await.is_ok() {}
        Ok(())
    });
    let channel = channel(&net);
    let answers = futures_util::future::join_all((0..8).map(|_| call(&channel))).await;
    answers.into_iter().for_each(|answer| drop(answer.unwrap()));
    assert_eq!(net.made("a:1"), 8);
}

#[tokio::test(start_paused = true)]
async fn a_trickle_keeps_to_the_deadline() {
    let net = Net::new();
    raw(&net, |mut raw| async move {
        let id = raw.call().await?;
        let answer = [support::frames::frame(HEADERS, END_HEADERS, id, &headers(OK)), vec![0; 4096]].concat();
        for byte in answer {
            raw.0.write_all(&[byte]).await?;
            sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    });
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.timeout(Duration::from_secs(10)).connect().await.unwrap();
    let begun = Instant::now();
    let status = call(&channel).await.unwrap_err();
    assert_eq!((status.code(), begun.elapsed().as_secs()), (Code::DeadlineExceeded, 10), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_end_is_given_up() {
    // SETTINGS whose length says more than ever comes, and a trickle of bytes.
    let net = Net::new();
    let mut listener = net.listen("a:1");
    tokio::spawn(async move {
        while let Some(Ok(mut io)) = listener.next().await {
            tokio::spawn(async move {
                io.write_all(&[0, 0x3f, 0xff, SETTINGS, 0, 0, 0, 0, 0]).await?;
                loop {
                    io.write_all(&[0]).await?;
                    sleep(Duration::from_secs(1)).await;
                }
                #[allow(unreachable_code)]
                Ok::<_, std::io::Error>(())
            });
        }
    });
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let error = format!("{:#}", builder.connect().await.unwrap_err());
    assert!(error.contains("did not finish connecting and HTTP/2's handshake within 5s"), "{error}");
    // One that is not HTTP/2 at all says so at once.
    let mut listener = net.listen("a:1");
    tokio::spawn(async move {
        while let Some(Ok(mut io)) = listener.next().await {
            io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let error = format!("{:#}", builder.ready_timeout(Duration::from_secs(1)).connect().await.unwrap_err());
    assert!(error.contains("accepts connections but does not speak HTTP/2"), "{error}");
}

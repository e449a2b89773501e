//! What happens on and between the connections to an endpoint: streams, lines, silence, windows.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use callsign::{
    Channel,
    channel::Keepalive,
    testing::net::{Fault, Net},
};
use futures_util::{FutureExt, future::join_all};
use support::{
    echo::{EchoClient, EchoRequest},
    endpoint, fed, raw, serve,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};

async fn call(channel: &Channel) -> Result<String, Status> {
    let reply = EchoClient::new(channel.clone()).unary(EchoRequest::default()).await?;
    Ok(reply.into_inner().server)
}

/// How many streams were open at once on any connection of a server, and how many calls it saw.
#[derive(Default)]
struct Seen {
    most: AtomicUsize,
    calls: AtomicUsize,
}

/// A server that lets so many streams be open at once and answers after so long.
fn limited(net: &Net, address: &str, limit: u32, takes: Duration) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let counter = seen.clone();
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(limit);
    raw::listen_as(&builder, net, address, move |_, mut connection| {
        let (seen, open) = (counter.clone(), Arc::new(AtomicUsize::new(0)));
        async move {
            while let Some(Ok(call)) = connection.accept().await {
                seen.calls.fetch_add(1, SeqCst);
                seen.most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
                let open = open.clone();
                tokio::spawn(async move {
                    sleep(takes).await;
                    open.fetch_sub(1, SeqCst);
                    raw::answer_ok(call);
                });
            }
        }
    });
    seen
}

#[tokio::test(start_paused = true)]
async fn streams_beyond_a_connection_s_limit_go_to_further_connections_and_then_wait() {
    let net = Net::new();
    let seen = limited(&net, "a:1", 10, Duration::from_secs(1));
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.connections_per_endpoint(3).connect().await.unwrap();
    let begun = Instant::now();
    let calls = join_all((0..70).map(|_| call(&channel))).await;
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    // 30 at once: the third round holds the last ten.
    assert_eq!((net.made("a:1"), seen.most.load(SeqCst), seen.calls.load(SeqCst)), (3, 10, 70));
    assert!((3.0..3.5).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
}

/// HTTP/2 counts the stream of a call that was taken back until the server has been told.
#[tokio::test(start_paused = true)]
async fn calls_taken_back_make_room_for_others_that_fail_for_no_reason_of_their_own() {
    let net = Net::new();
    limited(&net, "a:1", 2, Duration::from_millis(10));
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.connections_per_endpoint(1).connect().await.unwrap();
    for _ in 0..100 {
        let other = channel.clone();
        let open = tokio::spawn(async move { call(&other).await });
        sleep(Duration::from_millis(1)).await;
        for _ in 0..5 {
            // Queued, and dropped before anything else runs.
            assert!(std::pin::pin!(call(&channel)).now_or_never().is_none());
        }
        call(&channel).await.unwrap();
        open.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn streams_beyond_an_endpoint_s_connections_go_to_another_endpoint() {
    let net = Net::new();
    let narrow = limited(&net, "a:1", 5, Duration::from_secs(1));
    let wide = limited(&net, "b:1", 1000, Duration::from_secs(1));
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1"), endpoint("b", "b:1")]);
    let channel = builder.connections_per_endpoint(1).policy("round_robin".parse().unwrap()).connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let calls = join_all((0..100).map(|_| call(&channel))).await;
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    assert_eq!((narrow.calls.load(SeqCst), wide.calls.load(SeqCst)), (5, 95));
    assert!(begun.elapsed() < Duration::from_millis(1100), "nobody waited: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_stream_is_served_in_the_order_of_coming() {
    let net = Net::new();
    limited(&net, "a:1", 1, Duration::from_millis(10));
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.connections_per_endpoint(1).connect().await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    // Every 3 ms comes one more, while one is served every 10 ms.
    let calls = (0..100).map(|n| {
        let (channel, order) = (channel.clone(), order.clone());
        tokio::spawn(async move {
            sleep(Duration::from_millis(3 * n)).await;
            call(&channel).await.unwrap();
            order.lock().unwrap().push(n);
        })
    });
    join_all(calls).await;
    let order = order.lock().unwrap();
    assert!(order.is_sorted() && order.len() == 100, "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_stream_is_bounded() {
    let net = Net::new();
    let seen = limited(&net, "a:1", 1, Duration::from_secs(60));
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.connections_per_endpoint(1).connect().await.unwrap();
    let holder = channel.clone();
    let holder = tokio::spawn(async move { call(&holder).await });
    sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    let status = call(&channel).await.unwrap_err();
    assert_eq!((status.code(), begun.elapsed().as_secs()), (Code::Unavailable, 3));
    assert!(status.message().contains("waited 3.0s for a stream to one of 1 ready endpoints"), "{status}");
    let mut request = Request::new(EchoRequest::default());
    request.set_timeout(Duration::from_millis(200));
    let begun = Instant::now();
    let status = EchoClient::new(channel.clone()).unary(request).await.unwrap_err();
    assert_eq!((status.code(), begun.elapsed().as_millis()), (Code::DeadlineExceeded, 200));
    // A call that gives up gives its stream back.
    holder.abort();
    sleep(Duration::from_millis(1)).await;
    let patient = tokio::spawn(async move { call(&channel).await });
    sleep(Duration::from_millis(1)).await;
    assert_eq!(seen.calls.load(SeqCst), 2);
    patient.abort();
}

#[tokio::test(start_paused = true)]
async fn a_channel_out_of_use_lets_go_and_is_back_with_the_next_call() {
    let net = Net::new();
    serve(&net, "a", "a:1");
    serve(&net, "b", "b:1");
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1"), endpoint("b", "b:1")]);
    let channel = builder.idle_timeout(Duration::from_secs(60)).connect().await.unwrap();
    let open = || net.open("a:1") + net.open("b:1");
    sleep(Duration::from_secs(50)).await;
    call(&channel).await.unwrap();
    sleep(Duration::from_secs(55)).await;
    assert_eq!(open(), 2, "it was in use");
    // One long call is use, too.
    let slow = EchoRequest { delay_ms: 300_000, ..EchoRequest::default() };
    let mut client = EchoClient::new(channel.clone());
    let slow = tokio::spawn(async move { client.unary(slow).await });
    sleep(Duration::from_secs(299)).await;
    assert_eq!(open(), 2);
    slow.await.unwrap().unwrap();
    sleep(Duration::from_secs(95)).await;
    assert_eq!(open(), 0);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!((net.made("a:1"), net.made("b:1")), (1, 1));
    call(&channel).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(open(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_asked_and_then_given_up() {
    let net = Net::new();
    serve(&net, "a", "a:1");
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.idle_timeout(Duration::ZERO).connect().await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    net.fault("a:1", Fault::Stall);
    let begun = Instant::now();
    let status = call(&channel).await.unwrap_err();
    // 10 s of silence counted from the handshake are long over: it is asked with the call.
    assert_eq!((status.code(), begun.elapsed().as_secs()), (Code::Unavailable, 20));
    assert!(status.message().ends_with("the server did not answer a PING within 20s"), "{status}");
    net.fault("a:1", Fault::None);
    sleep(Duration::from_secs(10)).await;
    call(&channel).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_outlives_all_pings() {
    let net = Net::new();
    serve(&net, "a", "a:1");
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.keepalive(Keepalive::every(Duration::from_secs(10))).connect().await.unwrap();
    let slow = EchoRequest { delay_ms: 3_600_000, ..EchoRequest::default() };
    EchoClient::new(channel).unary(slow).await.unwrap();
    assert_eq!(net.made("a:1"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_finds_us_too_talkative_is_asked_half_as_often() {
    let net = Net::new();
    let ended = Arc::new(Mutex::new(Vec::new()));
    let times = ended.clone();
    // As grpc-go: it cuts a client off that pings without data in between.
    let mut listener = net.listen("a:1");
    tokio::spawn(async move {
        use futures_util::StreamExt;
        while let Some(Ok(io)) = listener.next().await {
            let (begun, times) = (Instant::now(), times.clone());
            tokio::spawn(async move {
                support::frames::cut_on_ping(io).await;
                times.lock().unwrap().push(begun.elapsed().as_secs());
            });
        }
    });
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let keepalive = Keepalive::every(Duration::from_secs(10)).while_idle(true);
    let _channel = builder.keepalive(keepalive).connect().await.unwrap();
    sleep(Duration::from_secs(85)).await;
    assert_eq!(*ended.lock().unwrap(), [10, 20, 40]);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_stalls_nobody_else() {
    let net = Net::new();
    serve(&net, "a", "a:1");
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.connections_per_endpoint(1).connect().await.unwrap();
    let mut client = EchoClient::new(channel.clone());
    // 50 streams of 64 MiB each, of which nobody reads more than the first message.
    let mut held = Vec::new();
    for _ in 0..50 {
        let endless = EchoRequest { replies: 1024, payload: vec![7; 64 << 10], ..EchoRequest::default() };
        let mut replies = client.server_stream(endless).await.unwrap().into_inner();
        replies.message().await.unwrap().unwrap();
        held.push(replies);
    }
    sleep(Duration::from_secs(5)).await;
    let begun = Instant::now();
    for _ in 0..100 {
        call(&channel).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // And who begins to read gets all of it.
    let mut count = 1;
    while held[0].message().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 1024);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_back_keeps_its_new_connection_when_the_old_one_ends() {
    let net = Net::new();
    serve(&net, "a", "a:1");
    let a = endpoint("a", "a:1");
    let (builder, feed) = fed(&net, std::slice::from_ref(&a));
    let channel = builder.connect().await.unwrap();
    let mut client = EchoClient::new(channel.clone());
    let slow =
        tokio::spawn(async move { client.unary(EchoRequest { delay_ms: 5_000, ..EchoRequest::default() }).await });
    sleep(Duration::from_millis(10)).await;
    feed.remove(&a);
    sleep(Duration::from_millis(10)).await;
    feed.insert(&a);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(net.open("a:1"), 2, "the old one goes on to its end");
    slow.await.unwrap().unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!((net.open("a:1"), net.made("a:1")), (1, 2));
    call(&channel).await.unwrap();
}

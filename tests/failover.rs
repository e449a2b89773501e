//! What happens to calls when endpoints fail: first, by name, what `balance_channel` of tonic gets wrong.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use callsign::{
    BackoffConfig, Channel, Endpoint,
    channel::CallOptions,
    testing::net::{Fault, Net},
};
use futures_util::future::join_all;
use support::{
    echo::{EchoClient, EchoRequest},
    endpoint, fed, raw, serve,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};

/// Endpoints `e0` to `eN`, each with its server unless it is in `dead`.
fn fleet(net: &Net, count: usize, dead: &[usize]) -> Vec<Endpoint> {
    (0..count)
        .map(|n| {
            if !dead.contains(&n) {
                serve(net, &format!("e{n}"), &format!("e{n}:1"));
            }
            endpoint(&format!("e{n}"), &format!("e{n}:1"))
        })
        .collect()
}

async fn call(channel: &Channel) -> Result<String, Status> {
    let reply = EchoClient::new(channel.clone()).unary(EchoRequest::default()).await?;
    Ok(reply.into_inner().server)
}

async fn within(channel: &Channel, bound: Duration) -> Result<String, Status> {
    let mut request = Request::new(EchoRequest::default());
    request.set_timeout(bound);
    Ok(EchoClient::new(channel.clone()).unary(request).await?.into_inner().server)
}

/// How many of so many calls each server answered; every failure fails the test.
async fn shares(channel: &Channel, calls: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..calls {
        *shares.entry(call(channel).await.unwrap()).or_insert(0) += 1;
    }
    shares
}

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_of_four_fails_no_call_and_serves_again_when_it_is_back() {
    let net = Net::new();
    let (builder, _feed) = fed(&net, &fleet(&net, 4, &[2]));
    let channel = builder.connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let shares_before = shares(&channel, 400).await;
    assert!(shares_before.len() == 3 && !shares_before.contains_key("e2"), "{shares_before:?}");
    let tried = net.tried("e2:1");
    assert!(tried <= 3, "{tried} dials, without regard to the backoff");

    serve(&net, "e2", "e2:1");
    sleep(Duration::from_secs(5)).await;
    assert!(shares(&channel, 400).await.contains_key("e2"));
}

#[tokio::test(start_paused = true)]
async fn an_error_does_not_outlive_the_outage() {
    let net = Net::new();
    let (builder, _feed) = fed(&net, &fleet(&net, 2, &[0, 1]));
    let channel = builder.connect_lazy().unwrap();
    let status = call(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("e0: cannot connect to grpc://e0:1"), "{}", status.message());

    (0..2).for_each(|n| drop(serve(&net, &format!("e{n}"), &format!("e{n}:1"))));
    sleep(Duration::from_secs(3)).await;
    assert_eq!(shares(&channel, 100).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_accepts_and_never_answers_gets_no_call() {
    let net = Net::new();
    let endpoints = fleet(&net, 4, &[]);
    net.fault("e1:1", Fault::Stall);
    let (builder, _feed) = fed(&net, &endpoints);
    let channel = builder.connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let shares = shares(&channel, 1000).await;
    assert!(!shares.contains_key("e1") && begun.elapsed() < Duration::from_millis(10), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_endpoint_of_eight_holds_up_only_what_it_had() {
    let net = Net::new();
    let (builder, _feed) = fed(&net, &fleet(&net, 8, &[]));
    let channel = builder.connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    net.fault("e1:1", Fault::Stall);
    // 64 callers, each one call after the other: what is stuck counts as in flight, so that all but
    // a few go elsewhere.
    let begun = Instant::now();
    let failed = Arc::new(AtomicUsize::new(0));
    let callers = (0..64).map(|_| async {
        for _ in 0..50 {
            match within(&channel, Duration::from_secs(1)).await {
                Ok(_) => {}
                Err(status) => {
                    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
                    failed.fetch_add(1, Relaxed);
                }
            }
            sleep(Duration::from_millis(1)).await;
        }
    });
    join_all(callers).await;
    let failed = failed.load(Relaxed);
    assert!((1..=128).contains(&failed), "{failed} of 3200");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_empty_set_keeps_to_the_deadline() {
    let net = Net::new();
    let (builder, feed) = fed(&net, &[]);
    let channel = builder.connect_lazy().unwrap();
    let begun = Instant::now();
    let status = within(&channel, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((status.code(), begun.elapsed().as_millis()), (Code::DeadlineExceeded, 200));
    // Without a deadline, patience is the bound.
    let begun = Instant::now();
    let status = call(&channel).await.unwrap_err();
    assert_eq!((status.code(), begun.elapsed().as_secs()), (Code::Unavailable, 3), "{status}");
    // And once there was one, there being none is an answer.
    let endpoint = &fleet(&net, 1, &[])[0];
    feed.insert(endpoint);
    call(&channel).await.unwrap();
    feed.remove(endpoint);
    sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    let status = call(&channel).await.unwrap_err();
    assert_eq!((status.code(), begun.elapsed()), (Code::Unavailable, Duration::ZERO), "{status}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_channel_follows_discovery() {
    let net = Net::new();
    let endpoints = fleet(&net, 1000, &[]);
    let (builder, feed) = fed(&net, &endpoints);
    let channel = builder.connect().await.unwrap();
    let open = || endpoints.iter().map(|endpoint| net.open(&endpoint.key().to_string())).sum::<usize>();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(open(), 1000);
    endpoints[1..].iter().for_each(|endpoint| feed.remove(endpoint));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(open(), 1, "and not one call was made");
    assert_eq!(call(&channel).await.unwrap(), "e0");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_endpoints_are_no_panic_and_no_burst() {
    let net = Net::new();
    let endpoints: Vec<_> = (0..10_000).map(|n| endpoint(&format!("e{n}"), &format!("e{n}:1"))).collect();
    // Each dial takes a second and then fails: so many are under way as are allowed.
    endpoints.iter().for_each(|endpoint| net.delay(&endpoint.key().to_string(), Duration::from_secs(1)));
    let (builder, _feed) = fed(&net, &endpoints);
    let _channel = builder.connect_lazy().unwrap();
    sleep(Duration::from_millis(10_500)).await;
    let tried: usize = endpoints.iter().map(|endpoint| net.tried(&endpoint.key().to_string())).sum();
    assert_eq!(tried, 11 * 32);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_and_a_goaway_are_told_apart_and_errors_name_the_endpoint() {
    let net = Net::new();
    // Says GOAWAY as soon as a call comes, having done nothing about it.
    raw::listen(&net, "a:1", |_, mut connection| async move {
        connection.abrupt_shutdown(h2::Reason::NO_ERROR);
        while connection.accept().await.is_some() {}
    });
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.connect_lazy().unwrap();
    let status = call(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("a: the server closed a young connection"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_call_refused_unprocessed_is_sent_once_more_and_only_once() {
    let net = Net::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    raw::listen(&net, "a:1", move |_, mut connection| {
        let seen = counter.clone();
        async move {
            while let Some(Ok(mut call)) = connection.accept().await {
                match seen.fetch_add(1, Relaxed) {
                    1 => raw::answer(call, "0"),
                    _ => call.1.send_reset(h2::Reason::REFUSED_STREAM),
                }
            }
        }
    });
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.connect().await.unwrap();
    // The bare server answers without a message, which is an error of its own; but it answered.
    let status = call(&channel).await.unwrap_err();
    assert_eq!((status.code(), seen.load(Relaxed)), (Code::Internal, 2), "{status}");
    let status = call(&channel).await.unwrap_err();
    assert_eq!((status.code(), seen.load(Relaxed)), (Code::Unavailable, 4), "{status}");
    assert!(status.message().starts_with("echo at a (a:1): the server refused the call unprocessed"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_goes_to_another_endpoint() {
    let net = Net::new();
    raw::listen(&net, "a:1", |_, mut connection| async move {
        while let Some(Ok(mut call)) = connection.accept().await {
            call.1.send_reset(h2::Reason::REFUSED_STREAM);
        }
    });
    serve(&net, "b", "b:1");
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1"), endpoint("b", "b:1")]);
    let channel = builder.connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(shares(&channel, 100).await, BTreeMap::from([("b".to_owned(), 100)]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ages_connections_costs_no_call() {
    let net = Net::new();
    // After two calls on a connection, GOAWAY as servers say it: what is open goes on.
    raw::listen(&net, "a:1", |_, mut connection| async move {
        let mut calls = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            calls += 1;
            if calls == 2 {
                connection.graceful_shutdown();
            }
            tokio::spawn(async move {
                sleep(Duration::from_secs(2)).await;
                let head = http::Response::builder()
                    .header("content-type", "application/grpc")
                    .header("grpc-status", "5")
                    .body(())
                    .unwrap();
                respond.send_response(head, true).unwrap();
            });
        }
    });
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.connect().await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let calls = (0..20).map(|n| {
        let channel = &channel;
        async move {
            sleep(Duration::from_millis(n * 700)).await;
            call(channel).await.unwrap_err().code()
        }
    });
    assert!(join_all(calls).await.into_iter().all(|code| code == Code::NotFound));
    assert!(net.made("a:1") > 3, "{} connections", net.made("a:1"));
}

#[tokio::test(start_paused = true)]
async fn one_that_goes_away_without_end_is_not_dialled_without_end() {
    let net = Net::new();
    raw::listen(&net, "a:1", |_, mut connection| async move {
        connection.abrupt_shutdown(h2::Reason::NO_ERROR);
        while connection.accept().await.is_some() {}
    });
    net.listen("b:1");
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1"), endpoint("b", "b:1")]);
    let _channel = builder.connect_lazy().unwrap();
    sleep(Duration::from_secs(60)).await;
    for address in ["a:1", "b:1"] {
        assert!((2..=12).contains(&net.tried(address)), "{address}: {} dials a minute", net.tried(address));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_fails_no_more_than_was_in_flight() {
    let net = Net::new();
    let (builder, _feed) = fed(&net, &fleet(&net, 4, &[]));
    let channel = builder.connect().await.unwrap();
    sleep(Duration::from_secs(6)).await;
    let slow = EchoRequest { delay_ms: 500, ..EchoRequest::default() };
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let (mut client, slow) = (EchoClient::new(channel.clone()), slow.clone());
            tokio::spawn(async move { client.unary(slow).await })
        })
        .collect();
    sleep(Duration::from_millis(100)).await;
    net.fault("e1:1", Fault::Cut);
    let results: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!((1..20).contains(&failed.len()), "{} failed", failed.len());
    assert!(failed.iter().all(|status| status.code() == Code::Unavailable && status.message().contains("e1 (e1:1)")));
    assert!(!shares(&channel, 300).await.contains_key("e1"));
    net.fault("e1:1", Fault::None);
    sleep(Duration::from_secs(5)).await;
    assert!(shares(&channel, 300).await.contains_key("e1"));
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_finishes_its_calls_and_lets_go() {
    let net = Net::new();
    let endpoints = fleet(&net, 2, &[]);
    let (builder, feed) = fed(&net, &endpoints);
    let channel = builder.policy("round_robin".parse().unwrap()).connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let slow = EchoRequest { delay_ms: 5_000, ..EchoRequest::default() };
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, slow) = (EchoClient::new(channel.clone()), slow.clone());
            tokio::spawn(async move { client.unary(slow).await })
        })
        .collect();
    sleep(Duration::from_millis(10)).await;
    feed.remove(&endpoints[0]);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(net.open("e0:1"), 1, "its calls go on");
    assert!(!shares(&channel, 20).await.contains_key("e0"), "but it gets no new ones");
    assert!(join_all(calls).await.into_iter().all(|call| call.unwrap().is_ok()));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(net.open("e0:1"), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_outlive_the_channel_and_then_nothing_is_left() {
    let net = Net::new();
    let (builder, _feed) = fed(&net, &fleet(&net, 2, &[]));
    let channel = builder.connect().await.unwrap();
    let request = EchoRequest { replies: 3, delay_ms: 1_000, ..EchoRequest::default() };
    let mut replies = EchoClient::new(channel).server_stream(request).await.unwrap().into_inner();
    for _ in 0..3 {
        assert!(replies.message().await.unwrap().is_some());
    }
    drop(replies);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((net.open("e0:1"), net.open("e1:1")), (0, 0));
}

/// R2, Kratos #2575: a change of metadata reconnected everybody.
#[tokio::test(start_paused = true)]
async fn a_new_description_of_an_endpoint_reconnects_nobody() {
    let net = Net::new();
    let endpoints = fleet(&net, 1, &[]);
    let (builder, feed) = fed(&net, &endpoints);
    let channel = builder.report_endpoint(true).connect().await.unwrap();
    let heavier = endpoints[0].instance().to_builder().weight(900).build().unwrap();
    feed.insert(&Endpoint::new(endpoints[0].key().clone(), heavier));
    sleep(Duration::from_millis(10)).await;
    let response = EchoClient::new(channel).unary(EchoRequest::default()).await.unwrap();
    assert_eq!(response.extensions().get::<Endpoint>().unwrap().instance().weight().get(), 900);
    assert_eq!(net.tried("e0:1"), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_readiness_waits_through_an_outage() {
    let net = Net::new();
    let (builder, _feed) = fed(&net, &fleet(&net, 2, &[0, 1]));
    let backoff = BackoffConfig::new(Duration::from_millis(100), Duration::from_secs(1));
    let channel = builder.backoff(backoff).connect_lazy().unwrap();
    sleep(Duration::from_secs(1)).await;
    let mut request = Request::new(EchoRequest::default());
    request.extensions_mut().insert(CallOptions::new().wait_for_ready(true));
    let mut client = EchoClient::new(channel.clone());
    let waiting = tokio::spawn(async move { client.unary(request).await });
    assert_eq!(call(&channel).await.unwrap_err().code(), Code::Unavailable, "who does not wait fails at once");
    sleep(Duration::from_secs(30)).await;
    assert!(!waiting.is_finished());
    serve(&net, "e1", "e1:1");
    assert_eq!(waiting.await.unwrap().unwrap().into_inner().server, "e1");
}

#[tokio::test(start_paused = true)]
async fn pick_first_connects_to_one_and_moves_on_when_it_is_gone() {
    let net = Net::new();
    let (builder, _feed) = fed(&net, &fleet(&net, 3, &[0]));
    let channel = builder.policy("pick_first".parse().unwrap()).connect().await.unwrap();
    assert_eq!(shares(&channel, 10).await, BTreeMap::from([("e1".to_owned(), 10)]));
    assert_eq!((net.open("e1:1"), net.tried("e2:1")), (1, 0));
    sleep(Duration::from_secs(10)).await;
    net.fault("e1:1", Fault::Cut);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(shares(&channel, 10).await, BTreeMap::from([("e2".to_owned(), 10)]));
}

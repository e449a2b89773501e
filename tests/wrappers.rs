//! What wrappers of policies do in a channel: outliers set aside, levels, zones.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, time::Duration};

use callsign::{
    Channel, Endpoint,
    testing::net::{Fault, Net},
};
use support::{
    echo::{Echo, EchoClient, EchoRequest},
    endpoint, fed, serve,
};
use tokio::time::sleep;
use tonic::{Status, service::interceptor::InterceptedService};

/// An endpoint with metadata, and its server.
fn served(net: &Net, id: &str, metadata: &[(&str, &str)]) -> Endpoint {
    let address = format!("{id}:1");
    serve(net, id, &address);
    with(&endpoint(id, &address), metadata)
}

fn with(endpoint: &Endpoint, metadata: &[(&str, &str)]) -> Endpoint {
    let builder = endpoint.instance().to_builder();
    let builder = metadata.iter().fold(builder, |builder, (key, value)| builder.metadata(*key, *value));
    Endpoint::new(endpoint.key().clone(), builder.build().unwrap())
}

/// How many of so many calls each server answered, and how many failed.
async fn shares(channel: &Channel, calls: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..calls {
        let reply = EchoClient::new(channel.clone()).unary(EchoRequest::default()).await;
        let who = reply.map_or_else(|_| "failed".to_owned(), |reply| reply.into_inner().server);
        *shares.entry(who).or_insert(0) += 1;
    }
    shares
}

async fn channel(net: &Net, endpoints: &[Endpoint], policy: &str) -> Channel {
    let (builder, feed) = fed(net, endpoints);
    let channel = builder.policy(policy.parse().unwrap()).connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    std::mem::forget(feed);
    channel
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_its_calls_is_set_aside_and_tried_again() {
    let net = Net::new();
    let mut endpoints: Vec<_> = (0..9).map(|n| served(&net, &format!("e{n}"), &[])).collect();
    let broken = |_: tonic::Request<()>| Err(Status::unavailable("broken"));
    let server = tonic::transport::Server::builder().add_service(InterceptedService::new(Echo::new("bad"), broken));
    let listener = net.listen("bad:1");
    let server = tokio::spawn(async move { server.serve_with_incoming(listener).await.unwrap() });
    endpoints.push(endpoint("bad", "bad:1"));
    let channel = channel(&net, &endpoints, "round_robin,outlier_ejection=true").await;
    assert_eq!(shares(&channel, 600).await["failed"], 60);
    sleep(Duration::from_secs(10)).await;
    let after = shares(&channel, 600).await;
    assert!(after.len() == 9 && !after.contains_key("failed"), "{after:?}");

    // It is well again; nobody calls for a while, which counts as well.
    server.abort();
    net.fault("bad:1", Fault::Cut);
    serve(&net, "bad", "bad:1");
    net.fault("bad:1", Fault::None);
    sleep(Duration::from_secs(20 * 60)).await;
    shares(&channel, 1).await;
    sleep(Duration::from_millis(1)).await;
    let back = shares(&channel, 600).await;
    assert!(back.len() == 10 && !back.contains_key("failed"), "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn reserves_take_over_and_hand_back() {
    let net = Net::new();
    let endpoints = [served(&net, "a", &[]), served(&net, "b", &[("priority", "1")])];
    let channel = channel(&net, &endpoints, "round_robin,failover=true").await;
    assert_eq!(shares(&channel, 10).await["a"], 10);
    net.fault("a:1", Fault::Cut);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(shares(&channel, 10).await["b"], 10);
    net.fault("a:1", Fault::None);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(shares(&channel, 10).await["a"], 10);

    // It hangs: calls wait for it for two seconds, and not longer.
    net.fault("a:1", Fault::Cut);
    net.fault("a:1", Fault::Stall);
    let begun = tokio::time::Instant::now();
    let late = shares(&channel, 10).await;
    assert!(late["b"] >= 9 && begun.elapsed() <= Duration::from_millis(2_100), "{late:?} in {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_target_keeps_calls_in_a_zone() {
    let net = Net::new();
    let endpoints = ["a", "b", "c"].map(|zone| served(&net, zone, &[("zone", zone)]));
    let channel = Channel::builder("echo?policy=least_request&prefer_zone=b&slow_start=10s")
        .connector(net.connector())
        .endpoints(endpoints)
        .connect()
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(shares(&channel, 10).await["b"], 10);
}

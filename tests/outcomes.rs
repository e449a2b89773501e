//! What a channel takes the end of a call for, and what its policy makes of that.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use callsign::{
    Channel,
    balance::{Adaptive, Balancer, Node, Pick, PickInfo, Picker, Policy},
    testing::net::Net,
};
use futures_util::future::join_all;
use support::{
    echo::{Echo, EchoClient, EchoRequest},
    endpoint, fed, serve,
};
use tokio::time::sleep;
use tonic::{Code, Request, Status, service::interceptor::InterceptedService};

/// `adaptive`, but for calls that say where to.
#[derive(Debug, Default)]
struct ByHeader(Adaptive);

impl Balancer for ByHeader {
    fn name(&self) -> &str {
        "by_header"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        let ids: Vec<_> = ready.iter().map(|node| node.endpoint().instance().id().to_string()).collect();
        let rest = self.0.rebuild(ready);
        Box::new(move |info: &PickInfo<'_>| {
            let wanted = info.headers.get("to").and_then(|to| to.to_str().ok());
            ids.iter().position(|id| Some(id.as_str()) == wanted).map_or_else(|| rest.pick(info), Pick::At)
        })
    }
}

const DEADLINE: Duration = Duration::from_millis(100);

/// What one call to `b` ends with, and how many of the next twenty at once go to each of two servers.
async fn after(streams: bool, failing: EchoRequest) -> (Code, BTreeMap<String, usize>) {
    let net = Net::new();
    let endpoints = ["a", "b"].map(|id| {
        serve(&net, id, &format!("{id}:1"));
        endpoint(id, &format!("{id}:1"))
    });
    let (builder, _feed) = fed(&net, &endpoints);
    let channel = builder.policy(Policy::new("by_header", |_| ByHeader::default())).connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let to = |id: &str, message: EchoRequest| {
        let mut request = Request::new(message);
        request.metadata_mut().insert("to", id.parse().unwrap());
        request.set_timeout(DEADLINE);
        request
    };
    let mut client = EchoClient::new(channel.clone());
    for id in ["a", "b", "a", "b"] {
        client.unary(to(id, EchoRequest { delay_ms: 90, ..EchoRequest::default() })).await.unwrap();
    }
    let status = if streams {
        client.server_stream(to("b", failing)).await.unwrap().into_inner().message().await.unwrap_err()
    } else {
        client.unary(to("b", failing)).await.unwrap_err()
    };
    // Longer than who was late is spared, and not as long as who failed is set aside.
    sleep(DEADLINE).await;
    (status.code(), shares(&channel).await)
}

async fn shares(channel: &Channel) -> BTreeMap<String, usize> {
    let call = |_| async {
        let request = EchoRequest { delay_ms: 90, ..EchoRequest::default() };
        EchoClient::new(channel.clone()).unary(request).await.unwrap().into_inner().server
    };
    let mut shares = BTreeMap::new();
    join_all((0..20).map(call)).await.into_iter().for_each(|server| *shares.entry(server).or_insert(0) += 1);
    shares
}

#[tokio::test(start_paused = true)]
async fn who_is_late_is_not_set_aside_and_who_fails_is() {
    let ends = |delay_ms, code: Code| EchoRequest { delay_ms, code: code as i32, replies: 1, ..EchoRequest::default() };
    for (what, streams, failing, code, at_b) in [
        ("no response by the deadline", false, ends(10_000, Code::Ok), Code::DeadlineExceeded, 8..=20),
        ("no message by the deadline", true, ends(10_000, Code::Ok), Code::DeadlineExceeded, 8..=20),
        ("late, as the server says", false, ends(90, Code::DeadlineExceeded), Code::DeadlineExceeded, 8..=20),
        ("a failure", false, ends(90, Code::Unavailable), Code::Unavailable, 0..=0),
    ] {
        let (ended, shares) = after(streams, failing).await;
        assert_eq!(ended, code, "{what}");
        assert!(at_b.contains(shares.get("b").unwrap_or(&0)), "{what}: {shares:?}");
    }
}

/// tower's metrics take an endpoint that fails fast for the fastest, and give it twice its share.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_fast_draws_no_more_than_its_share() {
    let net = Net::new();
    let endpoints: Vec<_> = (0..4).map(|n| endpoint(&format!("e{n}"), &format!("e{n}:1"))).collect();
    for n in 1..4 {
        serve(&net, &format!("e{n}"), &format!("e{n}:1"));
    }
    let broken =
        InterceptedService::new(Echo::new("e0"), |_: Request<()>| Err::<Request<()>, _>(Status::unavailable("broken")));
    let listener = net.listen("e0:1");
    tokio::spawn(tonic::transport::Server::builder().add_service(broken).serve_with_incoming(listener));
    let (builder, _feed) = fed(&net, &endpoints);
    let channel = builder.connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;

    let failed = AtomicUsize::new(0);
    let callers = (0..16).map(|_| async {
        let mut client = EchoClient::new(channel.clone());
        for _ in 0..200 {
            let answer = client.unary(EchoRequest { delay_ms: 10, ..EchoRequest::default() }).await;
            failed.fetch_add(answer.is_err().into(), Relaxed);
        }
    });
    join_all(callers).await;
    let failed = failed.into_inner();
    assert!((1..3_200 / 20).contains(&failed), "{failed} of 3200; a fair share is 800");
}

//! Probes: what a channel asks servers before it chooses one, in memory, on a paused clock.

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
    Channel, Registration, ServiceInstance,
    balance::{Adaptive, Balancer, Node, Pick, PickInfo, Picker, Policy, Probes},
    registry::Memory,
    report::LoadReport,
    server::RegistrationLayer,
    testing::net::{Fault, Net},
};
use futures_util::future::join_all;
use http::Request;
use support::{
    Feed,
    echo::{Echo, EchoClient, EchoRequest},
    endpoint, fed,
    seen::Seen,
};
use tokio::time::{Instant, sleep};
use tonic::{Status, body::Body};
use tower::util::MapRequestLayer;

const SERVERS: usize = 6;
const PROBE: &str = "/callsign.v1.Probes/Probe";

struct Server {
    registration: Registration,
    probes: Arc<AtomicUsize>,
}

struct Fixture {
    servers: Vec<Server>,
    channel: Channel,
    seen: Seen<Adaptive>,
    net: Net,
    _feed: Feed,
}

fn name(at: usize) -> String {
    format!("s{at}")
}

fn address(at: usize) -> String {
    format!("s{at}:1")
}

async fn fixture(set: impl Fn(RegistrationLayer) -> RegistrationLayer) -> Fixture {
    let net = Net::new();
    let servers: Vec<_> = (0..SERVERS)
        .map(|at| {
            let instance = ServiceInstance::builder("echo", name(at)).unwrap();
            let instance = instance.address(format!("grpc://{}", address(at)).parse().unwrap()).build().unwrap();
            let registration = Registration::new(&Memory::new().into(), instance).unwrap();
            let probes = Arc::new(AtomicUsize::new(0));
            let counted = probes.clone();
            let count = MapRequestLayer::new(move |request: Request<Body>| {
                counted.fetch_add(usize::from(request.uri().path() == PROBE), SeqCst);
                request
            });
            let server = tonic::transport::Server::builder()
                .layer(count)
                .layer(set(registration.layer()))
                .add_service(Echo::new(name(at)));
            let listener = net.listen(&address(at));
            tokio::spawn(async move { server.serve_with_incoming(listener).await.unwrap() });
            Server { registration, probes }
        })
        .collect();
    let endpoints: Vec<_> = (0..SERVERS).map(|at| endpoint(&name(at), &address(at))).collect();
    let (builder, _feed) = fed(&net, &endpoints);
    let seen = Seen::of(Adaptive::default());
    let channel = builder.policy(seen.policy()).connect().await.unwrap();
    // All are connected, and have answered.
    sleep(Duration::from_secs(1)).await;
    let fixture = Fixture { servers, channel, seen, net, _feed };
    for _ in 0..5 {
        join_all((0..SERVERS * 4).map(|_| fixture.call(20))).await;
    }
    fixture
}

impl Fixture {
    /// Who answered.
    async fn call(&self, delay_ms: u32) -> Result<usize, Status> {
        let request = EchoRequest { delay_ms, ..EchoRequest::default() };
        let reply = EchoClient::new(self.channel.clone()).unary(request).await?.into_inner();
        Ok(reply.server[1..].parse().unwrap())
    }

    /// One call after the other, with long pauses.
    async fn now_and_then(&self, calls: usize) -> Vec<usize> {
        let mut shares = vec![0; SERVERS];
        for _ in 0..calls {
            sleep(Duration::from_secs(1)).await;
            shares[self.call(20).await.unwrap()] += 1;
        }
        shares
    }

    fn probes(&self) -> Vec<usize> {
        self.servers.iter().map(|server| server.probes.load(SeqCst)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn who_calls_now_and_then_asks_before_and_goes_where_others_do_not() {
    let fixture = fixture(|layer| layer).await;
    let before: usize = fixture.probes().iter().sum();
    // Others keep two of them busy.
    let _held: Vec<_> =
        [1, 4].into_iter().flat_map(|at| (0..50).map(move |_| at)).map(|at| hold(&fixture.net, at)).collect();
    sleep(Duration::from_secs(1)).await;
    let calls = 60;
    let shares = fixture.now_and_then(calls).await;
    let probes = fixture.probes().iter().sum::<usize>() - before;
    assert!((calls * 3..=calls * 4).contains(&probes), "{probes} probes");
    assert_eq!((shares[1], shares[4]), (0, 0), "{shares:?}");
    assert!(shares.iter().enumerate().all(|(at, share)| *share > 3 || at == 1 || at == 4), "{shares:?}");
    // Probes are no load, and nobody's call.
    assert_eq!(fixture.servers[0].registration.in_flight(), 0);
    let answered: u64 = fixture.seen.nodes().iter().map(|node| node.load().succeeded()).sum();
    assert_eq!(answered as usize, SERVERS * 20 + calls);
}

/// A long call of somebody else's.
fn hold(net: &Net, at: usize) -> tokio::task::JoinHandle<()> {
    let (builder, feed) = fed(net, &[endpoint(&name(at), &address(at))]);
    tokio::spawn(async move {
        let _feed = feed;
        let channel = builder.connect().await.unwrap();
        let request = EchoRequest { delay_ms: 1_000_000, ..EchoRequest::default() };
        drop(EchoClient::new(channel).unary(request).await);
    })
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_holds_nobody_up_and_has_one_probe_at_a_time() {
    let fixture = fixture(|layer| layer).await;
    fixture.now_and_then(1).await;
    fixture.net.fault(&address(2), Fault::Stall);
    let before = fixture.probes();
    let mut waits = Vec::new();
    for _ in 0..30 {
        sleep(Duration::from_millis(200)).await;
        let begun = Instant::now();
        let at = fixture.call(20).await.unwrap();
        assert_ne!(at, 2, "who did not answer in time is not sent the call");
        waits.push(begun.elapsed());
    }
    let longest = waits.iter().max().unwrap();
    assert!(*longest < Duration::from_millis(20 + 5), "{waits:?}");
    assert!(fixture.probes()[2] - before[2] <= 1, "6 s, in which it was asked once");
    fixture.net.fault(&address(2), Fault::None);
    sleep(Duration::from_secs(10)).await;
    assert!(fixture.now_and_then(60).await[2] > 0, "it is back");
}

#[tokio::test(start_paused = true)]
async fn who_answers_none_is_asked_once_at_most_and_gets_its_share() {
    let fixture = fixture(|layer| layer.probes(false)).await;
    let shares = fixture.now_and_then(120).await;
    let probes = fixture.probes();
    assert!(probes.iter().sum::<usize>() >= 4 && probes.iter().all(|probes| *probes <= 1), "{probes:?}");
    assert!(shares.iter().all(|share| *share > 5), "{shares:?}");
    for (node, probes) in fixture.seen.nodes().iter().zip(probes) {
        assert_eq!(node.load().answers_probes(), Some(probes == 0));
    }
}

#[tokio::test(start_paused = true)]
async fn who_reports_nothing_may_answer_probes_and_says_so() {
    let fixture = fixture(|layer| layer.reports(false).probes(true)).await;
    let response = EchoClient::new(fixture.channel.clone()).unary(EchoRequest::default()).await.unwrap();
    let report = LoadReport::from_headers(&response.metadata().clone().into_headers()).unwrap();
    assert_eq!(report.named_metrics.into_iter().collect::<Vec<_>>(), [("callsign.probes".to_owned(), 1.0)]);
    fixture.now_and_then(10).await;
    assert!(fixture.probes().iter().sum::<usize>() >= 30, "{:?}", fixture.probes());

    let silent = self::fixture(|layer| layer.reports(false)).await;
    silent.now_and_then(10).await;
    assert_eq!(silent.probes().iter().sum::<usize>(), 0, "nobody is asked who did not say so");
}

/// Asks the first, tells it that a call comes in so long, and notes what it says.
#[derive(Debug, Clone)]
struct Announcing {
    within: Duration,
    heard: Arc<Mutex<Vec<f32>>>,
}

impl Balancer for Announcing {
    fn name(&self) -> &str {
        "announcing"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        let (this, node) = (self.clone(), ready[0].clone());
        Box::new(move |info: &PickInfo<'_>| {
            if info.probed.is_none() {
                return Pick::Probe(Probes::new([0], Duration::from_secs(1)).announcing(this.within));
            }
            let in_flight = node.load().reported(info.now).unwrap().in_flight.unwrap();
            this.heard.lock().unwrap().push(in_flight);
            Pick::At(0)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_tells_of_calls_that_others_announced_just_before() {
    let fixture = fixture(|layer| layer).await;
    let mut heard: Vec<f32> = Vec::new();
    for (pause_ms, within_ms) in [(0, 10), (0, 10), (0, 0), (10, 10), (0, 10), (100, 10)] {
        sleep(Duration::from_millis(pause_ms)).await;
        let asking = Announcing { within: Duration::from_millis(within_ms), heard: Arc::default() };
        let balancer = asking.clone();
        let (builder, _feed) = fed(&fixture.net, &[endpoint(&name(0), &address(0))]);
        let channel = builder.policy(Policy::new("announcing", move |_| balancer.clone())).connect().await.unwrap();
        EchoClient::new(channel).unary(EchoRequest::default()).await.unwrap();
        heard.extend(asking.heard.lock().unwrap().iter());
    }
    let e = std::f32::consts::E;
    let expected = [0.0, 1.0, 0.0, 2.0 / e, 2.0 / e + 1.0, 0.0];
    assert!(
        heard.iter().zip(expected).all(|(heard, expected): (&f32, f32)| (heard - expected).abs() < 0.01),
        "{heard:?}"
    );
    assert_eq!(heard.len(), expected.len());
}

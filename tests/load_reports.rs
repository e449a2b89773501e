//! What servers say of their load, what channels make of it, and what servers shed: in memory, on a paused clock.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{convert::Infallible, sync::Arc, time::Duration};

use callsign::{
    Channel, Registration, ServiceInstance,
    balance::{Balancer, LeastRequest, Node, Picker},
    registry::Memory,
    report::LoadReport,
    server::{AdaptiveLimit, CallMetrics, RegistrationLayer},
    testing::net::{Fault, Net},
};
use futures_util::{StreamExt, future::join_all};
use http::{Request, Response};
use support::{
    echo::{Echo, EchoClient, EchoRequest},
    endpoint, fed,
    seen::Seen,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status, body::Body, service::interceptor};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Layer, Service, ServiceExt, service_fn};

const ADDRESS: &str = "one:1";

/// Wants reports out of band so often.
#[derive(Debug, Clone)]
struct Asking(Option<Duration>);

impl Balancer for Asking {
    fn name(&self) -> &str {
        "asking"
    }

    fn load_reports(&self) -> Option<Duration> {
        self.0
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        LeastRequest::default().rebuild(ready)
    }
}

struct Fixture {
    registration: Registration,
    channel: Channel,
    seen: Seen<Asking>,
    net: Net,
}

/// What a handler would do: says what a call cost.
#[allow(clippy::result_large_err)]
fn costs(request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
    if let Some(metrics) = request.extensions().get::<CallMetrics>() {
        assert!(metrics.set_request_cost("rows", 12.0) && metrics.set_cpu_utilization(0.9));
    }
    Ok(request)
}

async fn fixture(set: impl FnOnce(RegistrationLayer) -> RegistrationLayer) -> Fixture {
    fixture_asking(None, set).await
}

async fn fixture_asking(every: Option<Duration>, set: impl FnOnce(RegistrationLayer) -> RegistrationLayer) -> Fixture {
    let net = Net::new();
    let instance = ServiceInstance::builder("echo", "one").unwrap();
    let instance = instance.address(format!("grpc://{ADDRESS}").parse().unwrap()).build().unwrap();
    let registration = Registration::new(&Memory::new().into(), instance).unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder()
        .layer(set(registration.layer()))
        .layer(interceptor::InterceptorLayer::new(costs))
        .add_service(Echo::new("one"))
        .add_service(health)
        .add_service(registration.load_reports());
    let listener = net.listen(ADDRESS);
    tokio::spawn(async move { server.serve_with_incoming(listener).await.unwrap() });
    let seen = Seen::of(Asking(every));
    let (builder, _feed) = fed(&net, &[endpoint("one", ADDRESS)]);
    let channel = builder.policy(seen.policy()).connect().await.unwrap();
    Fixture { registration, channel, seen, net }
}

impl Fixture {
    async fn call(&self, delay_ms: u32, code: i32) -> Result<Option<LoadReport>, Status> {
        let request = EchoRequest { delay_ms, code, ..EchoRequest::default() };
        let response = EchoClient::new(self.channel.clone()).unary(request).await?;
        Ok(LoadReport::from_headers(&response.metadata().clone().into_headers()))
    }

    async fn health(&self) -> Result<(), Status> {
        HealthClient::new(self.channel.clone()).check(HealthCheckRequest::default()).await.map(drop)
    }

    fn reported(&self) -> Option<callsign::load::Reported> {
        self.seen.nodes()[0].load().reported(Instant::now().into_std())
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_says_how_busy_its_server_is() {
    let fixture = fixture(|layer| layer).await;
    assert!(fixture.registration.metrics().set_application_utilization(0.25));
    assert_eq!(fixture.reported(), None);
    let long = fixture.call(5_000, 0);
    let short = async {
        for _ in 0..60 {
            let report = fixture.call(20, 0).await.unwrap().unwrap();
            assert_eq!(report.named_metrics["callsign.in_flight"], 1.0, "the long one");
            assert_eq!(report.application_utilization, 0.25);
        }
        let report = fixture.call(20, 0).await.unwrap().unwrap();
        // With the long one in flight, each took some 20 ms.
        assert!((20.0..25.0).contains(&report.named_metrics["callsign.latency_ms"]), "{report:?}");
        assert!((40.0..60.0).contains(&report.requests_per_second), "{report:?}");
        assert_eq!(report.errors_per_second, 0.0);
        let reported = fixture.reported().unwrap();
        assert_eq!((reported.in_flight, reported.own), (Some(1.0), 1));
        let effort = reported.effort.unwrap();
        assert_eq!(effort.utilization, 0.25);
        assert!((f64::from(effort.requests_per_second) - report.requests_per_second).abs() < 0.01);
        sleep(Duration::from_secs(1)).await;
        assert!((1.0..1.1).contains(&fixture.reported().unwrap().age.as_secs_f64()));
    };
    let (long, ()) = tokio::join!(long, short);
    assert_eq!(long.unwrap().unwrap().named_metrics["callsign.in_flight"], 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_says_so_too() {
    let fixture = fixture(|layer| layer).await;
    for _ in 0..30 {
        let failed = fixture.call(50, Code::Unavailable as i32).await.unwrap_err();
        // A head is all there is, and it has the report.
        let report = LoadReport::from_headers(&failed.metadata().clone().into_headers()).unwrap();
        assert_eq!(report.named_metrics["callsign.in_flight"], 0.0);
        let latency = report.named_metrics.get("callsign.latency_ms");
        assert!(latency.is_none_or(|millis| *millis < 10.0), "who fails is not timed");
        let fine = fixture.call(0, Code::NotFound as i32).await.unwrap_err();
        assert_eq!(fine.code(), Code::NotFound);
    }
    let report = fixture.call(0, 0).await.unwrap().unwrap();
    assert!((report.requests_per_second / 2.0 - report.errors_per_second).abs() < 1.0, "{report:?}");
    assert!(report.errors_per_second > 15.0, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_says_is_of_its_call_alone_and_counts_first() {
    let fixture = fixture(|layer| layer.reports(false).call_metrics(true)).await;
    assert!(fixture.registration.metrics().set_cpu_utilization(0.5));
    let report = fixture.call(0, 0).await.unwrap().unwrap();
    let mut expected = LoadReport::default();
    expected.cpu_utilization = 0.9;
    expected.request_cost.insert("rows".into(), 12.0);
    assert_eq!(report, expected);

    let both = self::fixture(|layer| layer.call_metrics(true)).await;
    assert!(
        both.registration.metrics().set_cpu_utilization(0.5) && both.registration.metrics().set_named_metric("q", 3.0)
    );
    let report = both.call(0, 0).await.unwrap().unwrap();
    assert_eq!((report.cpu_utilization, report.named_metrics["q"]), (0.9, 3.0));

    let none = self::fixture(|layer| layer.reports(false)).await;
    assert_eq!(none.call(0, 0).await.unwrap(), None);
    assert_eq!(none.reported(), None);
}

#[tokio::test(start_paused = true)]
async fn metrics_are_sound_and_bounded() {
    let metrics = fixture(|layer| layer).await.registration.metrics();
    for unsound in [f64::NAN, f64::INFINITY, -0.1] {
        assert!(!metrics.set_cpu_utilization(unsound) && !metrics.set_named_metric("a", unsound));
    }
    assert_eq!(metrics.report(), LoadReport::default());
    assert!(!metrics.set_named_metric(&"n".repeat(512), 1.0));
    let taken = (0..100).filter(|at| metrics.set_utilization(&format!("metric-{at}"), 0.5)).count();
    assert!((18..25).contains(&taken), "{taken}");
    metrics.remove_utilization("metric-0");
    assert!(metrics.set_utilization("metric-x", 0.0));
    metrics.set_named_metric("metric-0", 1.0);
    metrics.remove_named_metric("metric-0");
    assert_eq!(metrics.report().utilization.len(), taken);
}

#[tokio::test(start_paused = true)]
async fn past_a_fixed_bound_requests_are_shed_at_once_and_health_checks_are_not() {
    let fixture = fixture(|layer| layer.limit(2)).await;
    let calls = join_all((0..5).map(|_| fixture.call(1_000, 0)));
    let begun = Instant::now();
    let watch = async {
        sleep(Duration::from_millis(500)).await;
        assert_eq!(fixture.registration.in_flight(), 2);
        fixture.health().await.unwrap();
        let shed = fixture.call(0, 0).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_millis(600), "at once");
        assert_eq!(shed.code(), Code::ResourceExhausted, "{shed}");
        let pushback: u64 = shed.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
        assert!((50..=150).contains(&pushback), "{pushback}");
        let report = LoadReport::from_headers(&shed.metadata().clone().into_headers()).unwrap();
        assert_eq!(report.named_metrics["callsign.in_flight"], 2.0);
    };
    let (calls, ()) = tokio::join!(calls, watch);
    sleep(Duration::from_secs(1)).await;
    let report = fixture.call(0, 0).await.unwrap().unwrap();
    assert!((1.0..2.0).contains(&report.requests_per_second), "those that were shed are none: {report:?}");
    let codes: Vec<_> = calls.into_iter().filter_map(|call| Some(call.err()?.code())).collect();
    assert_eq!(codes, [Code::ResourceExhausted; 3]);
    assert_eq!((fixture.registration.shed(), fixture.registration.in_flight()), (4, 0));
    fixture.call(0, 0).await.unwrap();
}

/// A server of four workers, 10 ms a request, under one and a half times what it can do.
#[tokio::test(start_paused = true)]
async fn an_adaptive_bound_keeps_an_overloaded_server_quick() {
    let layer =
        Registration::new(&Memory::new().into(), ServiceInstance::builder("echo", "one").unwrap().build().unwrap());
    let registration = layer.unwrap();
    let layer = registration.layer().adaptive_limit(AdaptiveLimit::new());
    assert_eq!(layer.current_limit(), Some(20));
    let workers = Arc::new(tokio::sync::Semaphore::new(4));
    let service = layer.layer(service_fn(move |_: Request<Body>| {
        let workers = workers.clone();
        async move {
            let _worker = workers.acquire_owned().await.unwrap();
            sleep(Duration::from_millis(10)).await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    }));
    let run = async |seconds: u64, every: Duration| {
        let (mut took, mut calls) = (Vec::new(), Vec::new());
        let mut ticks = tokio::time::interval(every);
        for _ in 0..(seconds * 1_000_000 / every.as_micros() as u64) {
            ticks.tick().await;
            let mut service = service.clone();
            calls.push(tokio::spawn(async move {
                let begun = Instant::now();
                let response = service.call(Request::new(Body::empty())).await.unwrap();
                (response.status() == 200).then(|| begun.elapsed())
            }));
        }
        let all = calls.len();
        for call in calls {
            took.extend(call.await.unwrap());
        }
        took.sort();
        (took.len() as f64 / all as f64, took[took.len() * 99 / 100])
    };
    // 320 a second, of 400.
    let (served, slow) = run(20, Duration::from_micros(3_125)).await;
    assert!(served == 1.0 && slow < Duration::from_millis(25), "{served} {slow:?}");
    // 600 a second: two thirds can be served, and those that are, soon.
    let (served, slow) = run(120, Duration::from_micros(1_667)).await;
    assert!(served > 0.62, "{served}");
    assert!(slow < Duration::from_millis(60), "{slow:?}");
    assert!(registration.shed() > 10_000);
    // And when it is over, it is over.
    let (served, _) = run(20, Duration::from_micros(3_125)).await;
    assert!(served > 0.99, "{served}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_grpc_is_left_as_it_is_and_shed_as_http() {
    let fixture = fixture(|layer| layer).await;
    let service = service_fn(async |_: Request<Body>| {
        sleep(Duration::from_secs(1)).await;
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let service = fixture.registration.layer().limit(1).layer(service);
    let calls = (0..2).map(|_| service.clone().oneshot(Request::new(Body::empty())));
    let [one, two] = join_all(calls).await.try_into().unwrap();
    assert!(one.unwrap().headers().is_empty());
    let two = two.unwrap();
    assert_eq!((two.status().as_u16(), two.headers()["retry-after"].to_str().unwrap()), (503, "1"));
}

#[tokio::test(start_paused = true)]
async fn reports_out_of_band_come_as_often_as_asked_and_end_with_the_server() {
    let fixture = fixture(|layer| layer).await;
    let metrics = fixture.registration.metrics();
    metrics.set_memory_utilization(0.5);
    let begun = Instant::now();
    let mut reports = fixture.channel.load_reports(Duration::from_secs(3)).await.unwrap();
    let first = reports.next().await.unwrap().unwrap();
    assert_eq!(first.memory_utilization, 0.5);
    assert_eq!(first.named_metrics["callsign.in_flight"], 0.0, "the stream is no load");
    assert!(begun.elapsed() < Duration::from_secs(1), "at once");
    metrics.set_memory_utilization(0.7);
    assert_eq!(reports.next().await.unwrap().unwrap().memory_utilization, 0.7);
    assert!(begun.elapsed().abs_diff(Duration::from_secs(3)) < Duration::from_millis(100), "{:?}", begun.elapsed());
    // Nobody gets them more often than each second.
    let begun = Instant::now();
    let hasty = fixture.channel.load_reports(Duration::ZERO).await.unwrap();
    assert_eq!(hasty.take(4).count().await, 4);
    assert!(begun.elapsed().abs_diff(Duration::from_secs(3)) < Duration::from_millis(100), "{:?}", begun.elapsed());

    fixture.registration.shutdown().await;
    let rest = timeout(Duration::from_millis(100), reports.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(rest.last().unwrap().as_ref().unwrap_err().code(), Code::Unavailable);
    timeout(Duration::from_secs(1), fixture.registration.idle()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_wants_reports_out_of_band_has_them_without_a_call() {
    let fixture = fixture_asking(Some(Duration::from_secs(2)), |layer| layer.reports(false)).await;
    let metrics = fixture.registration.metrics();
    let said = async |cpu: f64| {
        metrics.set_cpu_utilization(cpu);
        for _ in 0..50 {
            fixture.call(10, 0).await.unwrap();
        }
        sleep(Duration::from_secs(3)).await;
        let reported = fixture.reported().unwrap();
        assert!(reported.age < Duration::from_secs(2), "{reported:?}");
        assert_eq!((reported.in_flight, reported.effort.unwrap().utilization), (Some(0.0), cpu as f32));
    };
    sleep(Duration::from_millis(10)).await;
    assert_eq!(fixture.reported().unwrap().effort, None, "the first comes at once, and says little");
    said(0.5).await;
    said(0.75).await;
    let load = fixture.seen.nodes()[0].load().clone();
    assert_eq!((load.in_flight(), load.succeeded()), (0, 100), "the stream is no call of the application's");
    // It goes on over the next connection.
    fixture.net.fault(ADDRESS, Fault::Cut);
    sleep(Duration::from_secs(1)).await;
    fixture.net.fault(ADDRESS, Fault::None);
    sleep(Duration::from_secs(5)).await;
    said(0.25).await;
    // With the channel goes the stream.
    let Fixture { channel, registration, .. } = fixture;
    drop(channel);
    timeout(Duration::from_secs(1), registration.idle()).await.unwrap();
}

/// The next connection may lead to another process, of which nothing is known.
#[tokio::test(start_paused = true)]
async fn what_a_server_said_is_forgotten_with_its_connection() {
    let fixture = fixture(|layer| layer).await;
    fixture.registration.metrics().set_application_utilization(0.25);
    let load = fixture.seen.nodes()[0].load().clone();
    let known_for = || load.reported(Instant::now().into_std()).unwrap().effort.unwrap().known_for;
    for _ in 0..100 {
        fixture.call(100, 0).await.unwrap();
    }
    assert!(known_for() > Duration::from_secs(5), "{:?}", known_for());
    assert_eq!(load.answers_probes(), Some(true));
    load.refuse_probes();
    fixture.net.fault(ADDRESS, Fault::Cut);
    sleep(Duration::from_millis(100)).await;
    fixture.net.fault(ADDRESS, Fault::None);
    while fixture.net.made(ADDRESS) < 2 {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!((fixture.reported(), load.answers_probes()), (None, None));
    for _ in 0..10 {
        fixture.call(100, 0).await.unwrap();
    }
    assert!(known_for() < Duration::from_secs(2), "{:?}", known_for());
    assert_eq!(load.answers_probes(), Some(true));
}

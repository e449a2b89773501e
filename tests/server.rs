//! The server side in this process, on loopback: what it registers, its health, how it drains.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    net::TcpListener as StdListener,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use callsign::{
    Channel, Endpoint, Kind, Registration, Scheme, Server, ServiceInstance,
    registry::{Discovery, Registry},
    testing::{FakeRegistry, Fault, Operation},
};
use support::echo::{Echo, EchoClient, EchoRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const SOON: Duration = Duration::from_secs(5);

struct Running {
    instance: Arc<ServiceInstance>,
    registration: Registration,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<callsign::Result<()>>,
}

impl Running {
    async fn start(server: Server, registry: &FakeRegistry) -> Self {
        let bound = server.bind(registry.clone()).await.unwrap();
        let (instance, registration) = (bound.instance(), bound.registration().clone());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(bound.serve(async { drop(stopped.await) }));
        Self { instance, registration, stop: Some(stop), serving }
    }

    async fn registered(server: Server, registry: &FakeRegistry) -> Self {
        let running = Self::start(server, registry).await;
        timeout(SOON, running.registration.registered()).await.unwrap().unwrap();
        running
    }

    fn at(&self, scheme: Scheme) -> String {
        let address = self.instance.addresses().iter().find(|address| address.scheme() == scheme).unwrap();
        address.authority().to_string()
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    async fn ended(self) -> callsign::Result<()> {
        timeout(SOON, self.serving).await.unwrap().unwrap()
    }
}

fn router(name: &str) -> tonic::transport::server::Router {
    tonic::transport::Server::builder().add_service(Echo::new(name))
}

fn server(id: &str) -> Server {
    Server::new("echo").id(id).grpc("127.0.0.1:0", router(id)).drain(Duration::ZERO)
}

async fn channel(registry: &FakeRegistry) -> Channel {
    Channel::builder("echo").registry(registry.clone()).report_endpoint(true).connect().await.unwrap()
}

fn request(delay_ms: u32) -> EchoRequest {
    EchoRequest { delay_ms, ..EchoRequest::default() }
}

async fn health(at: &str, service: &str) -> Result<i32, Code> {
    let channel = tonic::transport::Endpoint::new(format!("http://{at}")).unwrap().connect_lazy();
    let request = HealthCheckRequest { service: service.to_owned() };
    let checked = HealthClient::new(channel).check(request).await;
    checked.map(|response| response.into_inner().status).map_err(|status| status.code())
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_with_a_grpc_and_an_http_endpoint() {
    let registry = FakeRegistry::new();
    let http = Router::new().route("/", get(|| async { "by http" }));
    let both = server("one").http("127.0.0.1:0", http).version("v1").metadata("zone", "z").metadata("weight", "7");
    let mut running = Running::registered(both, &registry).await;
    let instances = registry.instances("echo");
    assert_eq!(instances, [running.instance.clone()]);
    let schemes: Vec<_> = instances[0].addresses().iter().map(|address| address.scheme()).collect();
    assert_eq!(schemes, [Scheme::Grpc, Scheme::Http], "gRPC first, as Kratos's clients want it");
    assert_eq!((instances[0].version(), instances[0].weight().get()), ("v1", 7));
    assert!(instances[0].addresses().iter().all(|address| address.port().unwrap() > 0));

    let response = EchoClient::new(channel(&registry).await).unary(request(0)).await.unwrap();
    assert_eq!(response.extensions().get::<Endpoint>().unwrap().instance().id().as_str(), "one");

    let mut stream = TcpStream::connect(running.at(Scheme::Http)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).ends_with("by http"));

    // The idle connection that the HTTP client keeps is closed, not waited for.
    running.stop();
    running.ended().await.unwrap();
    assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
    assert!(registry.instances("echo").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_readiness_and_draining() {
    let registry = FakeRegistry::new();
    let (ready, is_ready) = oneshot::channel::<()>();
    let bound = server("one").ready_when(async { drop(is_ready.await) }).health_of("echo.v1.Echo");
    let mut running = Running::start(bound.drain(Duration::from_secs(1)), &registry).await;
    let at = running.at(Scheme::Grpc);
    for service in ["", "echo", "echo.v1.Echo"] {
        assert_eq!(health(&at, service).await, Ok(NOT_SERVING), "{service:?}");
    }
    assert_eq!(health(&at, "other").await, Err(Code::NotFound));
    assert_eq!(registry.counts().registers, 0);
    ready.send(()).unwrap();
    timeout(SOON, running.registration.registered()).await.unwrap().unwrap();
    assert_eq!(health(&at, "").await, Ok(SERVING));

    running.stop();
    timeout(SOON, registry.until(|counts| counts.deregisters == 1)).await.unwrap();
    // Out of the registry, and still accepting.
    assert_eq!(health(&at, "").await, Ok(NOT_SERVING));
    let late = tonic::transport::Endpoint::new(format!("http://{at}")).unwrap().connect().await.unwrap();
    EchoClient::new(late).unary(request(0)).await.unwrap();
    running.ended().await.unwrap();
    assert_eq!(health(&at, "").await, Err(Code::Unavailable));
}

/// A5: without a pause between deregistering and closing, each rollout failed calls.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_finished_and_no_call_fails_while_servers_are_replaced() {
    let registry = FakeRegistry::new();
    let mut old = Running::registered(server("old").drain(Duration::from_millis(300)), &registry).await;
    let channel = channel(&registry).await;
    let slow = tokio::spawn({
        let channel = channel.clone();
        async move { EchoClient::new(channel).unary(request(1_500)).await }
    });
    sleep(Duration::from_millis(100)).await;
    let calling = tokio::spawn(async move {
        let mut client = EchoClient::new(channel);
        let (begun, mut calls) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(2) {
            client.unary(request(0)).await.unwrap();
            calls += 1;
        }
        calls
    });
    let mut new = Running::registered(server("new"), &registry).await;
    sleep(Duration::from_millis(100)).await;
    old.stop();
    old.ended().await.unwrap();
    let response = slow.await.unwrap().unwrap();
    assert_eq!(response.extensions().get::<Endpoint>().unwrap().instance().id().as_str(), "old");
    assert!(calling.await.unwrap() > 100);
    new.stop();
    new.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_period_bounds_what_never_ends() {
    let registry = FakeRegistry::new();
    let mut running = Running::registered(server("one").grace(Duration::from_millis(300)), &registry).await;
    let mut client = EchoClient::new(channel(&registry).await);
    let endless = tokio::spawn(async move { client.unary(request(600_000)).await });
    sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    running.stop();
    running.ended().await.unwrap();
    assert!((Duration::from_millis(300)..Duration::from_secs(2)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    // Nor does the connection live on in a task that nobody owns.
    let status = timeout(SOON, endless).await.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_drops_the_server_deregisters_and_cuts() {
    let registry = FakeRegistry::new();
    let Running { registration, serving, instance, stop: _stop } = Running::registered(server("one"), &registry).await;
    let mut client = EchoClient::new(channel(&registry).await);
    let endless = tokio::spawn(async move { client.unary(request(600_000)).await });
    sleep(Duration::from_millis(200)).await;
    drop(registration);
    serving.abort();
    timeout(SOON, registry.until(|counts| counts.deregisters == 1)).await.unwrap();
    assert!(timeout(SOON, endless).await.unwrap().unwrap().is_err());
    let at = instance.addresses()[0].authority().to_string();
    assert!(TcpStream::connect(at).await.is_err(), "nobody listens");
}

/// A layer that cannot be made: the server's own future panics when it begins to serve.
#[derive(Clone)]
struct Broken;

impl<S> tower::Layer<S> for Broken {
    type Service = S;

    fn layer(&self, _: S) -> S {
        panic!("a crash of the gRPC server, as the test wants it")
    }
}

/// A3: a server that crashed stayed registered.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_nothing_registered() {
    let registry = FakeRegistry::new();
    let router = tonic::transport::Server::builder().layer(Broken).add_service(Echo::new("one"));
    let crashing = Server::new("echo").grpc("127.0.0.1:0", router).serve(registry.clone(), std::future::pending());
    assert!(timeout(SOON, tokio::spawn(crashing)).await.unwrap().unwrap_err().is_panic());
    sleep(Duration::from_millis(100)).await;
    assert!(registry.instances("echo").is_empty());
    let counts = registry.counts();
    assert_eq!(counts.registers, counts.deregisters);
}

/// A2: a registration that failed left the servers running, and nobody was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_holds_nothing_up_and_one_that_refuses_ends_it() {
    let registry = FakeRegistry::new();
    registry.outage(Fault::Error);
    let mut running = Running::start(server("one"), &registry).await;
    timeout(SOON, registry.until(|counts| counts.registers >= 2)).await.unwrap();
    assert_eq!(health(&running.at(Scheme::Grpc), "").await, Ok(SERVING));
    registry.recover();
    timeout(SOON, running.registration.registered()).await.unwrap().unwrap();
    running.stop();
    running.ended().await.unwrap();

    // Unless it is told to fail fast.
    registry.outage(Fault::Error);
    let running = Running::start(server("one").register_within(Duration::from_millis(500)), &registry).await;
    let error = running.ended().await.unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    assert!(format!("{error:#}").contains("because a test said so"), "{error:#}");
    registry.recover();

    registry.fault(Operation::Register, Fault::Refuse);
    let running = Running::start(server("one"), &registry).await;
    let error = running.ended().await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput);
    assert!(format!("{error:#}").contains("refuses"), "{error:#}");
}

/// A1, Kratos #1427, #2977: registered without a listener, and the error of the bind was hidden.
#[tokio::test]
async fn what_cannot_begin_says_why() {
    let registry = || Registry::from(FakeRegistry::new());
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let cases = [
        (Server::new("echo"), Kind::InvalidInput, "listens nowhere"),
        (Server::new("echo").grpc(&at, router("x")), Kind::Conflict, at.as_str()),
        (Server::new("echo").grpc("nonsense", router("x")), Kind::InvalidInput, "nonsense"),
        (Server::new("").grpc("127.0.0.1:0", router("x")), Kind::InvalidInput, "name"),
        (server("one").advertise("no host"), Kind::InvalidInput, "no host"),
        (server("one").metadata("k", "x".repeat(100_000)), Kind::InvalidInput, "metadata"),
    ];
    for (server, kind, what) in cases {
        let error = server.bind(registry()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:#}");
        assert!(format!("{error:#}").contains(what), "{error:#}");
    }
    let listed = callsign::registry("static://127.0.0.1:1").unwrap();
    assert_eq!(server("one").bind(listed).await.unwrap_err().kind(), Kind::Unsupported);
    let bound = server("one").advertise("echo.example").bind(registry()).await.unwrap();
    assert_eq!(bound.instance().addresses()[0].host(), Some("echo.example"));
    let all = Server::new("echo").grpc("0.0.0.0:0", router("x")).bind(registry()).await.unwrap();
    assert_ne!(all.instance().addresses()[0].host(), Some("0.0.0.0"));
    assert!(all.instance().id().as_str().contains("echo"), "{:?}", all.instance());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_for_those_who_have_their_own_server() {
    let registry = FakeRegistry::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("grpc://{}", listener.local_addr().unwrap());
    let instance = ServiceInstance::builder("echo", "own").unwrap().address(address.parse().unwrap()).build().unwrap();
    let registration = Registration::new(&registry.clone().into(), instance).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tonic::transport::Server::builder()
        .layer(registration.layer())
        .add_service(Echo::new("own"))
        .serve_with_incoming_shutdown(registration.incoming(listener), async { drop(stopped.await) });
    let serving = tokio::spawn(serving);

    let channel = channel(&registry).await;
    assert_eq!(registration.in_flight(), 0);
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let mut client = EchoClient::new(channel.clone());
            tokio::spawn(async move { client.unary(request(500)).await })
        })
        .collect();
    let all_in = async {
        while registration.in_flight() != 5 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, all_in).await.unwrap();
    assert!(!registration.layer().is_draining());
    registration.shutdown().await;
    assert!(registration.layer().is_draining());
    assert!(registry.list(&"echo".parse().unwrap()).await.unwrap().instances().is_empty());
    timeout(SOON, registration.idle()).await.unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    stop.send(()).unwrap();
    timeout(SOON, serving).await.unwrap().unwrap().unwrap();
}

//! Channels by name: from a target and a registry to calls, through outages and changes.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use callsign::{
    Channel, ChannelBuilder, Endpoint, Kind, ServiceInstance,
    channel::CallOptions,
    observe::{Event, Observer},
    registry::{Registry, Schemes},
    testing::{
        FakeRegistry, Fault as RegistryFault,
        net::{Fault, Net},
    },
};
use support::{
    echo::{EchoClient, EchoRequest},
    serve,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};

fn instance(id: &str, version: &str, weight: u32) -> ServiceInstance {
    let address = format!("grpc://{id}:1").parse().unwrap();
    let builder = ServiceInstance::builder("echo", id).unwrap().version(version).address(address);
    builder.weight(weight).build().unwrap()
}

fn set(registry: &FakeRegistry, ids: &[&str]) {
    registry.set("echo", ids.iter().map(|id| instance(id, "v1", 100)));
}

fn builder(net: &Net, registry: &FakeRegistry, target: &str) -> ChannelBuilder {
    Channel::builder(target).registry(registry.clone()).connector(net.connector()).seed(1).report_endpoint(true)
}

async fn call(channel: &Channel) -> Result<String, Status> {
    call_with(channel, CallOptions::new(), Duration::from_secs(60)).await
}

async fn call_with(channel: &Channel, options: CallOptions, deadline: Duration) -> Result<String, Status> {
    let mut request = Request::new(EchoRequest::default());
    request.set_timeout(deadline);
    request.extensions_mut().insert(options);
    let response = EchoClient::new(channel.clone()).unary(request).await?;
    Ok(response.extensions().get::<Endpoint>().unwrap().instance().id().to_string())
}

#[derive(Debug, Default)]
struct Log(Mutex<Vec<String>>);

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        let line = match event {
            Event::EndpointInserted { endpoint, .. } => format!("inserted {}", endpoint.instance().id()),
            Event::EndpointUpdated { endpoint, .. } => format!("updated {}", endpoint.instance().id()),
            Event::EndpointRemoved { endpoint, .. } => format!("removed {}", endpoint.instance().id()),
            Event::Connecting { endpoint, attempt, .. } => format!("connecting {} {attempt}", endpoint.instance().id()),
            Event::Connected { endpoint, .. } => format!("connected {}", endpoint.instance().id()),
            Event::ConnectFailed { endpoint, .. } => format!("failed {}", endpoint.instance().id()),
            Event::Disconnected { endpoint, .. } => format!("disconnected {}", endpoint.instance().id()),
            Event::PickSet { ready, known, .. } => format!("{ready} of {known}"),
            Event::RegistryUnavailable { .. } => "registry unavailable".to_owned(),
            Event::RegistryRecovered { outage, .. } => format!("registry back after {} s", outage.as_secs()),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_begins_with_the_registry_down_and_calls_when_it_is_up() {
    let (net, registry) = (Net::new(), FakeRegistry::new());
    serve(&net, "a", "a:1");
    set(&registry, &["a"]);
    registry.outage(RegistryFault::Error);
    let channel = builder(&net, &registry, "echo").connect_lazy().unwrap();

    // A call does not wait for ever, and says for what it waited.
    let begun = Instant::now();
    let status = call(&channel).await.unwrap_err();
    assert_eq!((status.code(), begun.elapsed().as_secs()), (Code::Unavailable, 3), "{status}");
    assert!(status.message().contains("echo") && status.message().contains("registry does not answer"), "{status}");
    let status = call_with(&channel, CallOptions::new(), Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");

    // One that waits for readiness gets through as soon as the registry is back.
    let waiting = call_with(&channel, CallOptions::new().wait_for_ready(true), Duration::from_secs(3600));
    let recover = async {
        sleep(Duration::from_secs(600)).await;
        registry.recover();
    };
    let (served, ()) = tokio::join!(waiting, recover);
    assert_eq!(served.unwrap(), "a");
    assert!(begun.elapsed() < Duration::from_secs(606), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_outage_takes_nobody_out_and_an_empty_set_takes_all() {
    let (net, registry) = (Net::new(), FakeRegistry::new());
    serve(&net, "a", "a:1");
    serve(&net, "b", "b:1");
    set(&registry, &["a", "b"]);
    let channel = builder(&net, &registry, "echo").connect().await.unwrap();
    registry.outage(RegistryFault::Error);
    for _ in 0..100 {
        sleep(Duration::from_secs(60)).await;
        call(&channel).await.unwrap();
    }
    registry.end_watches();
    sleep(Duration::from_secs(60)).await;
    call(&channel).await.unwrap();

    // The registry gave up its watches, and comes back: it is followed again.
    set(&registry, &["a"]);
    registry.recover();
    sleep(Duration::from_secs(60)).await;
    for _ in 0..20 {
        assert_eq!(call(&channel).await.unwrap(), "a");
    }
    set(&registry, &[]);
    sleep(Duration::from_millis(10)).await;
    let begun = Instant::now();
    let status = call(&channel).await.unwrap_err();
    assert!(status.message().contains("no instance"), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(1), "it is certain, so nobody waits");
}

#[tokio::test(start_paused = true)]
async fn what_a_target_says_goes_before_what_the_program_says() {
    let (net, registry) = (Net::new(), FakeRegistry::new());
    for id in ["a", "b"] {
        serve(&net, id, &format!("{id}:1"));
    }
    registry.set("echo", [instance("a", "v1", 1), instance("b", "v2", 1)]);
    let channel = builder(&net, &registry, "echo?version=v2&policy=round_robin&timeout=5s")
        .policy("random".parse().unwrap())
        .timeout(Duration::from_secs(1))
        .connect()
        .await
        .unwrap();
    for _ in 0..20 {
        assert_eq!(call(&channel).await.unwrap(), "b");
    }
    net.fault("b:1", Fault::Stall);
    let begun = Instant::now();
    let status = EchoClient::new(channel).unary(EchoRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), begun.elapsed().as_secs()), (Code::DeadlineExceeded, 5), "{status}");

    for (target, what) in [
        ("echo?polcy=random", "polcy"),
        ("echo?policy=rondom", "rondom"),
        ("echo?subset=0", "subset"),
        ("echo?timeout=soon", "timeout"),
        ("", "service"),
        ("a/b", "registry"),
    ] {
        let built = builder(&net, &registry, target).connect_lazy();
        match built {
            Ok(_) => assert_eq!(target, "a/b", "{target} is taken"),
            Err(error) => {
                assert_eq!(error.kind(), Kind::InvalidInput, "{error:#}");
                assert!(format!("{error:#}").contains(what), "{target}: {error:#}");
            }
        }
    }
    for target in ["echo", "nowhere:///echo", "file://echo", "memory://"] {
        assert_eq!(Channel::connect_lazy(target).unwrap_err().kind(), Kind::InvalidInput, "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn channels_of_one_target_share_one_watch_and_leave_nothing_behind() {
    let (net, registry) = (Net::new(), FakeRegistry::new());
    serve(&net, "a", "a:1");
    set(&registry, &["a"]);
    let schemes = Schemes::default().with("fake", {
        let registry = registry.clone();
        move |_| Ok(Registry::from(registry.clone()))
    });
    let mut channels = Vec::new();
    for _ in 0..10 {
        let builder = Channel::builder("fake://lab/echo")
            .schemes(schemes.clone())
            .connector(net.connector())
            .report_endpoint(true);
        channels.push(builder.connect().await.unwrap());
    }
    assert_eq!(registry.counts().watches_opened, 1);
    channels.clear();
    // It lingers, so that one who comes back soon need not begin anew.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(registry.counts().watches_alive, 1);
    let back =
        Channel::builder("fake://lab/echo").schemes(schemes.clone()).connector(net.connector()).report_endpoint(true);
    call(&back.connect().await.unwrap()).await.unwrap();
    assert_eq!(registry.counts().watches_opened, 1);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(registry.counts().watches_alive, 0);
}

#[tokio::test(start_paused = true)]
async fn every_turn_is_one_event_with_its_fields() {
    let (net, registry) = (Net::new(), FakeRegistry::new());
    let a = serve(&net, "a", "a:1");
    set(&registry, &["a"]);
    let log = Arc::new(Log::default());
    let channel = builder(&net, &registry, "echo").observer(log.clone()).connect().await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(log.take(), ["inserted a", "connecting a 1", "0 of 1", "connected a", "1 of 1"]);

    // Another weight: told, and nobody reconnects.
    registry.set("echo", [instance("a", "v1", 7)]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(log.take(), ["updated a", "1 of 1"]);
    assert_eq!(net.made("a:1"), 1);

    registry.outage(RegistryFault::Error);
    sleep(Duration::from_secs(7)).await;
    registry.recover();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(log.take(), ["registry unavailable", "registry back after 7 s"]);

    // One that nobody listens for.
    registry.set("echo", [instance("a", "v1", 7), instance("b", "v1", 1)]);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(log.take(), ["inserted b", "connecting b 1", "1 of 2", "failed b"]);
    registry.set("echo", [instance("a", "v1", 7)]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(log.take(), ["removed b", "1 of 1"]);

    a.abort();
    net.fault("a:1", Fault::Cut);
    sleep(Duration::from_millis(500)).await;
    let told = log.take();
    assert_eq!(told[..3], ["disconnected a", "connecting a 1", "0 of 1"], "{told:?}");
    assert!(told[3..].iter().all(|line| line == "failed a"), "{told:?}");
    let status = call(&channel).await.unwrap_err();
    assert!(status.message().contains("a: ") && status.code() == Code::Unavailable, "{status}");
    set(&registry, &[]);
    sleep(Duration::from_millis(10)).await;
    assert!(log.take().ends_with(&["removed a".to_owned(), "0 of 0".to_owned()]));
}

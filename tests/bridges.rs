//! A resolver feeding tower's `Balance` and tonic's own channel.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, time::Duration};

use callsign::{
    Channel, EndpointKey, Server, ServiceInstance,
    registry::Discovery,
    resolver::Resolver,
    testing::{FakeRegistry, net::Net},
};
use futures_util::StreamExt;
use support::echo::{Echo, EchoClient, EchoRequest};
use tokio::time::{sleep, timeout};
use tower::{
    Service, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::Change,
    load::{CompleteOnResponse, PendingRequestsDiscover},
    util::BoxCloneSyncService,
};

const SOON: Duration = Duration::from_secs(5);

fn resolver(registry: &FakeRegistry) -> Resolver {
    let echo = "echo".parse().unwrap();
    let watch = registry.watch(&echo);
    Resolver::new(echo, watch)
}

async fn started(registry: &FakeRegistry, ids: &[&str]) -> Vec<tokio::task::JoinHandle<callsign::Result<()>>> {
    let mut servers = Vec::new();
    for id in ids {
        let router = tonic::transport::Server::builder().add_service(Echo::new(*id));
        let server = Server::new("echo").id(*id).grpc("127.0.0.1:0", router).bind(registry.clone()).await.unwrap();
        let registered = server.registration().registered();
        servers.push(tokio::spawn(server.serve(std::future::pending())));
        registered.await.unwrap();
    }
    servers
}

fn instance(id: &str, weight: u32) -> ServiceInstance {
    let address = format!("grpc://{id}:1").parse().unwrap();
    ServiceInstance::builder("echo", id).unwrap().address(address).weight(weight).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tonics_own_channel_is_fed_in_one_call() {
    let registry = FakeRegistry::new();
    let servers = started(&registry, &["a", "b"]).await;
    let mut client = EchoClient::new(resolver(&registry).into_tonic_channel());
    let mut served = BTreeMap::new();
    for _ in 0..200 {
        let reply = timeout(SOON, client.unary(EchoRequest::default())).await.unwrap().unwrap();
        *served.entry(reply.into_inner().server).or_insert(0) += 1;
    }
    assert_eq!(served.len(), 2, "{served:?}");
    // One leaves the registry, and is called no more.
    servers[0].abort();
    timeout(SOON, registry.until(|counts| counts.deregisters == 1)).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    for _ in 0..50 {
        let reply = timeout(SOON, client.unary(EchoRequest::default())).await.unwrap().unwrap();
        assert_eq!(reply.into_inner().server, "b");
    }
    // What feeds it ends with it.
    drop(client);
    timeout(SOON, registry.until(|counts| counts.watches_alive == 0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn towers_balance_gets_services_that_are_ready_when_connected() {
    let registry = FakeRegistry::new();
    let _servers = started(&registry, &["a", "b", "c"]).await;
    // One that nobody can reach is never ready, so it is never called.
    let dead = ServiceInstance::builder("echo", "dead").unwrap().address("grpc://127.0.0.1:1".parse().unwrap());
    let mut all: Vec<_> = registry.instances("echo").iter().map(|instance| (**instance).clone()).collect();
    all.push(dead.build().unwrap());
    registry.set("echo", all);

    let loads = PendingRequestsDiscover::new(resolver(&registry).into_services(), CompleteOnResponse::default());
    let balance = Buffer::new(Balance::new(loads), 16).map_err(tonic::Status::from_error);
    let mut client = EchoClient::new(BoxCloneSyncService::new(balance));
    let mut served = BTreeMap::new();
    for _ in 0..600 {
        let response = timeout(SOON, client.unary(EchoRequest::default())).await.unwrap().unwrap();
        let by = response.into_inner().server;
        *served.entry(by).or_insert(0) += 1;
    }
    assert_eq!(served.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(served.values().all(|calls| *calls > 100), "{served:?}");
}

#[tokio::test]
async fn a_change_of_weight_makes_no_new_service() {
    let registry = FakeRegistry::new();
    registry.set("echo", [instance("a", 1), instance("b", 1)]);
    let mut made = 0;
    let mut services = resolver(&registry).into_services_by(|endpoint| {
        made += 1;
        (endpoint.instance().id().as_str() != "c").then(|| endpoint.instance().id().to_string())
    });
    let mut seen = Vec::new();
    let mut take = async |services: &mut (dyn futures_util::Stream<Item = _> + Unpin), count: usize| {
        for _ in 0..count {
            let change: Result<Change<EndpointKey, String>, _> = timeout(SOON, services.next()).await.unwrap().unwrap();
            let Ok::<_, std::convert::Infallible>(change) = change;
            seen.push(match change {
                Change::Insert(key, _) => format!("+{key}"),
                Change::Remove(key) => format!("-{key}"),
            });
        }
    };
    take(&mut services, 2).await;
    registry.set("echo", [instance("a", 50), instance("b", 50), instance("c", 1)]);
    sleep(Duration::from_millis(10)).await;
    registry.set("echo", [instance("b", 50)]);
    take(&mut services, 1).await;
    drop(services);
    assert_eq!(seen, ["+a:1", "+b:1", "-a:1"]);
    assert!(made <= 3, "{made} services made");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_waits_is_ready_only_with_an_endpoint() {
    let net = Net::new();
    let server = support::serve(&net, "a", "a:1");
    let registry = FakeRegistry::new();
    let channel =
        Channel::builder("echo").registry(registry.clone()).connector(net.connector()).connect_lazy().unwrap();
    let mut waiting = channel.when_ready();
    let ready = timeout(Duration::from_secs(3600), waiting.ready()).await;
    assert!(ready.is_err(), "there is nobody");
    registry.set("echo", [instance("a", 1)]);
    timeout(SOON, waiting.ready()).await.unwrap().unwrap();
    EchoClient::new(waiting.clone()).unary(EchoRequest::default()).await.unwrap();
    server.abort();
    registry.set("echo", []);
    sleep(SOON).await;
    assert!(futures_util::poll!(std::future::poll_fn(|cx| waiting.poll_ready(cx))).is_pending());
}

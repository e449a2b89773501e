//! A registration through all that can happen to a registry. On a paused clock.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use callsign::{
    Kind, Registration, ServiceInstance,
    observe::{Event, Observer},
    registry::{Discovery, Fixed, Memory},
    server::RegistrationState,
    testing::{Counts, FakeRegistry, Fault, Operation},
};
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, timeout};

const TTL: Duration = Duration::from_secs(15);

fn instance() -> ServiceInstance {
    ServiceInstance::builder("s", "a").unwrap().address("grpc://10.0.0.1:9".parse().unwrap()).build().unwrap()
}

#[derive(Debug, Default)]
struct Log(Mutex<Vec<String>>, Mutex<Duration>);

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::RegisterFailed { retry_in, .. } = event {
            let mut longest = self.1.lock().unwrap();
            *longest = longest.max(*retry_in);
        }
        let name = format!("{event:?}");
        self.0.lock().unwrap().push(name.split([' ', '{']).next().unwrap().to_owned());
    }
}

fn begin(fake: &FakeRegistry) -> (Registration, Arc<Log>) {
    let log = Arc::new(Log::default());
    let registration = Registration::with_observer(&fake.clone().into(), instance(), log.clone()).unwrap();
    registration.start();
    (registration, log)
}

async fn until(fake: &FakeRegistry, what: &str, holds: impl FnMut(&Counts) -> bool + Send) {
    assert!(timeout(TTL * 100, fake.until(holds)).await.is_ok(), "{what}: {:?}", fake.counts());
}

#[tokio::test(start_paused = true)]
async fn renews_at_a_third_of_the_ttl_and_deregisters() {
    let fake = FakeRegistry::new().with_ttl(TTL);
    let registration = Registration::new(&fake.clone().into(), instance()).unwrap();
    sleep(TTL).await;
    assert_eq!(fake.counts().registers, 0, "nobody has started it");
    assert!(matches!(registration.state(), RegistrationState::Waiting));
    registration.start();
    registration.start();
    registration.registered().await.unwrap();
    let begun = Instant::now();
    for n in 1..=10 {
        fake.until(|counts| counts.renews == n).await;
        assert_eq!(begun.elapsed().as_secs(), 5 * n as u64);
    }
    registration.shutdown().await;
    assert!(matches!(registration.state(), RegistrationState::Deregistered));
    assert!(fake.instances("s").is_empty());
    sleep(TTL * 3).await;
    let counts = fake.counts();
    assert_eq!((counts.registers, counts.renews, counts.deregisters), (1, 10, 1));
    assert_eq!(registration.registered().await.unwrap_err().kind(), Kind::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_down_is_tried_for_ever() {
    let fake = FakeRegistry::new().with_ttl(TTL);
    fake.outage(Fault::Error);
    let (registration, log) = begin(&fake);
    sleep(Duration::from_secs(3600)).await;
    let tries = fake.counts().registers;
    assert!((300..1000).contains(&tries), "{tries} tries in an hour");
    assert!(matches!(registration.state(), RegistrationState::Registering(Some(_))), "{registration:?}");
    assert!(registration.registered().now_or_never().is_none());
    fake.recover();
    let begun = Instant::now();
    registration.registered().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(13), "{:?}", begun.elapsed());
    // Not by luck: this is of hundreds.
    let longest = *log.1.lock().unwrap();
    assert!(longest <= Duration::from_secs(12), "{longest:?}");
    assert_eq!(log.0.lock().unwrap().iter().filter(|event| *event == "RegisterFailed").count(), tries);
    assert_eq!(fake.instances("s").len(), 1);
}

/// Kratos stays away for ever here (seen on real servers).
#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_registered_again_and_an_outage_shorter_than_the_ttl_is_not() {
    let fake = FakeRegistry::new().with_ttl(TTL);
    let (registration, log) = begin(&fake);
    registration.registered().await.unwrap();

    fake.lose_lease("a");
    assert!(fake.instances("s").is_empty());
    until(&fake, "registered again", |counts| counts.registers == 2).await;
    registration.registered().await.unwrap();
    assert_eq!(fake.instances("s").len(), 1);

    fake.outage(Fault::Error);
    sleep(TTL * 2 / 3).await;
    assert!(matches!(registration.state(), RegistrationState::Degraded(_)), "{registration:?}");
    fake.recover();
    sleep(TTL / 3).await;
    assert!(matches!(registration.state(), RegistrationState::Registered));
    assert_eq!(fake.counts().registers, 2, "the lease lived");

    // An outage past the TTL: nobody knows whether the lease lives, so it is taken again.
    fake.outage(Fault::Hang);
    sleep(TTL * 4).await;
    assert!(matches!(registration.state(), RegistrationState::Registering(_)), "{registration:?}");
    fake.recover();
    registration.registered().await.unwrap();
    assert_eq!(fake.instances("s").len(), 1);
    let events = log.0.lock().unwrap();
    assert_eq!(events.iter().filter(|event| *event == "LeaseLost").count(), 2, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_said_and_not_tried_again_until_it_changes() {
    let fake = FakeRegistry::new().with_ttl(TTL);
    fake.fault(Operation::Register, Fault::Refuse);
    let (registration, _) = begin(&fake);
    assert_eq!(registration.registered().await.unwrap_err().kind(), Kind::InvalidInput);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(fake.counts().registers, 1);
    fake.recover();
    registration.update(instance().to_builder().version("v2").build().unwrap()).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(matches!(registration.state(), RegistrationState::Registered));
    let other = ServiceInstance::builder("s", "b").unwrap().build().unwrap();
    assert_eq!(registration.update(other).unwrap_err().kind(), Kind::InvalidInput);
    let fixed = Fixed::new(["grpc://10.0.0.1:1".parse().unwrap()]).unwrap();
    assert_eq!(Registration::new(&fixed.into(), instance()).unwrap_err().kind(), Kind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn an_update_is_registered_at_once() {
    let fake = FakeRegistry::new().with_ttl(TTL);
    let (registration, _) = begin(&fake);
    registration.registered().await.unwrap();
    let mut watch = fake.watch(instance().service());
    registration.update(instance().to_builder().weight(7).build().unwrap()).unwrap();
    let begun = Instant::now();
    loop {
        let view = watch.next().await.unwrap();
        let instances = view.snapshot().unwrap().instances();
        assert_eq!(instances.len(), 1, "it is never away");
        if instances[0].weight().get() == 7 {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_millis(100));
    registration.shutdown().await;
    assert!(fake.instances("s").is_empty());
}

#[tokio::test(start_paused = true)]
async fn dropping_it_takes_the_instance_out() {
    let fake = FakeRegistry::new().with_ttl(TTL);
    let (registration, _) = begin(&fake);
    registration.registered().await.unwrap();
    let clone = registration.clone();
    drop(registration);
    sleep(TTL * 2).await;
    assert_eq!(fake.instances("s").len(), 1, "a clone holds it");
    let mut states = clone.states();
    drop(clone);
    until(&fake, "deregistered", |counts| counts.deregisters == 1).await;
    assert!(fake.instances("s").is_empty());
    let mut last = None;
    while let Some(state) = states.next().await {
        last = Some(state);
    }
    assert!(matches!(last, Some(RegistrationState::Deregistered)));
}

/// A4: an error of deregistering kept the program from ending.
#[tokio::test(start_paused = true)]
async fn shutdown_is_bounded_and_never_overtaken_by_what_is_in_flight() {
    // A registration in flight: it is waited for, so that its lease is not left behind.
    let fake = FakeRegistry::new().with_ttl(TTL);
    fake.fault(Operation::Register, Fault::Hang);
    let (registration, _) = begin(&fake);
    until(&fake, "registering", |counts| counts.registers == 1).await;
    let mut shutdown = Box::pin(registration.shutdown());
    assert!(futures_util::poll!(&mut shutdown).is_pending());
    fake.recover();
    shutdown.await;
    assert!(fake.instances("s").is_empty());

    // A renewal in flight at a registry that hangs, and then deregistering hangs too.
    let fake = FakeRegistry::new().with_ttl(TTL);
    let (registration, log) = begin(&fake);
    registration.registered().await.unwrap();
    fake.outage(Fault::Hang);
    until(&fake, "renewing", |counts| counts.renews == 1).await;
    let begun = Instant::now();
    registration.shutdown().await;
    assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(log.0.lock().unwrap().last().unwrap(), "DeregisterFailed");
}

/// A deregistration and a heartbeat at the same moment, many times (Kratos's K3, C5).
#[tokio::test(start_paused = true)]
async fn no_heartbeat_brings_a_deregistered_instance_back() {
    let memory = Memory::new().with_ttl(Duration::from_millis(30));
    for n in 0..1000u64 {
        let registration = Registration::new(&memory.clone().into(), instance()).unwrap();
        registration.start();
        registration.registered().await.unwrap();
        sleep(Duration::from_millis(n % 12)).await;
        registration.shutdown().await;
        assert!(memory.list(instance().service()).await.unwrap().instances().is_empty(), "round {n}");
    }
    sleep(Duration::from_secs(1)).await;
    assert!(memory.list(instance().service()).await.unwrap().instances().is_empty());
}

#[tokio::test]
async fn incoming_registers_when_the_server_first_accepts() {
    let fake = FakeRegistry::new();
    let registration = Registration::new(&fake.clone().into(), instance()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut incoming = registration.incoming(listener);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(fake.counts().registers, 0);
    let (accepted, connected) = tokio::join!(incoming.next(), tokio::net::TcpStream::connect(address));
    connected.unwrap();
    assert!(accepted.unwrap().unwrap().nodelay().unwrap());
    registration.registered().await.unwrap();
    drop(registration);
    until(&fake, "deregistered", |counts| counts.deregisters == 1).await;
}

//! Three members of which one stops, and ten thousand instances.

use between::{GET_CHILDREN, GET_DATA};
use futures_util::{StreamExt, stream};

use super::*;

/// The member that leads.
fn leader(real: &real::ZooKeeper) -> usize {
    (0..3).find(|n| real.ask(*n, "srvr").contains("Mode: leader")).unwrap()
}

/// Whether a session is at a member.
fn is_at(real: &real::ZooKeeper, n: usize, token: &str) -> bool {
    real.ask(n, "cons").contains(&format!("sid=0x{}", token.trim_start_matches('0')))
}

/// Where the leader stops, the others choose another, and sessions go on there: the same sessions, not new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_moves_where_the_leader_stops() {
    let Some(real) = real::ZooKeeper::start(3) else { return };
    let leads = leader(&real);
    let session = Duration::from_secs(30);
    // A client begins at any member: until one is at the leader.
    let mut at_leader = None;
    for n in 0..40 {
        let zookeeper = at(&real).session(session).build().unwrap();
        let lease = zookeeper.register(&Arc::new(instance(&format!("a{n}")))).await.unwrap();
        if is_at(&real, leads, lease.token()) {
            at_leader = Some((zookeeper, lease));
            break;
        }
        zookeeper.deregister(&lease).await.unwrap();
    }
    let (zookeeper, lease) = at_leader.unwrap();
    // Z1: and its id is negative, as all of an ensemble are whose server's id is 128 or more. Kratos takes it for none.
    assert!(i64::from_str_radix(lease.token(), 16).is_err(), "{}", lease.token());
    let id = lease.instance().id().to_string();
    let log = Arc::new(Log::default());
    let registration = registered(at(&real).session(session).build().unwrap(), instance("r"), &log).await;
    let mut watch = at(&real).session(session).build().unwrap().watch(&service());
    until(&mut watch, &[&id, "r"]).await;

    real.signal(leads, "STOP");
    // No change meanwhile: it is there, and whose it was.
    let begun = Instant::now();
    let kept = loop {
        match zookeeper.renew(&lease).await {
            Ok(renewal) => break renewal,
            Err(error) => assert!(error.is_retryable() && begun.elapsed() < BOUND, "{error:#}"),
        }
    };
    assert_eq!(kept, Renewal::Kept);
    let moved = || (0..3).filter(|n| *n != leads).any(|n| is_at(&real, n, lease.token()));
    eventually("the session is at another member", moved).await;
    until_outage(&mut watch, false).await;
    until(&mut watch, &[&id, "r"]).await;

    // The watch is alive there.
    let other = (0..3).find(|n| *n != leads).unwrap();
    let client = Client::connect(&real.members()[other]).await.unwrap();
    put(&client, "/microservices/s/z", &instance("z").to_json()).await;
    until(&mut watch, &[&id, "r", "z"]).await;
    let owner = client.check_stat(&format!("/microservices/s/{id}")).await.unwrap().unwrap().ephemeral_owner;
    assert_eq!(format!("{owner:016x}"), lease.token());
    assert_eq!((log.count("Registered"), log.count("LeaseLost")), (1, 0), "{log:?}");

    real.signal(leads, "CONT");
    assert_eq!(zookeeper.renew(&lease).await.unwrap(), Renewal::Kept);
    zookeeper.deregister(&lease).await.unwrap();
    registration.shutdown().await;
    until(&mut watch, &["z"]).await;
}

/// One change among ten thousand: one node is read, and one is decoded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_change_among_ten_thousand_reads_one() {
    const MANY: usize = 10_000;
    let Some(real) = shared() else { return };
    let between = Between::new(&real).await;
    let client = by_hand(&real).await;
    put(&client, "/many/s/i00000", &instance("i00000").to_json()).await;
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    stream::iter(1..MANY)
        .for_each_concurrent(500, |n| {
            let (client, options, id) = (client.clone(), &options, format!("i{n:05}"));
            async move {
                let (path, data) = (format!("/many/s/{id}"), instance(&id).to_json());
                client.create(&path, data.as_bytes(), options).await.unwrap();
            }
        })
        .await;
    let zookeeper = between.registry("/many", Duration::from_secs(20));
    let mut watch = zookeeper.watch(&service());
    let next = async |watch: &mut Watch, what: &str, holds: &dyn Fn(&Watch) -> bool| {
        let told = async {
            while !holds(watch) {
                watch.next().await.unwrap();
            }
        };
        assert!(timeout(BOUND, told).await.is_ok(), "{what}");
    };
    let set = |watch: &Watch| watch.view().snapshot().map(|set| set.instances().to_vec()).unwrap_or_default();
    next(&mut watch, "all", &|watch| set(watch).len() == MANY).await;
    assert_eq!((between.take(GET_DATA).len(), between.take(GET_CHILDREN).len()), (MANY, 1));

    let before = set(&watch);
    let changed = instance("i05000").to_builder().version("v2").build().unwrap();
    client.set_data("/many/s/i05000", changed.to_json().as_bytes(), None).await.unwrap();
    next(&mut watch, "the change", &|watch| set(watch)[5000].version() == "v2").await;
    assert_eq!(between.take(GET_DATA), ["/many/s/i05000"]);
    assert_eq!(between.take(GET_CHILDREN).len(), 0);
    // What is decoded is a new value.
    let after = set(&watch);
    let decoded = before.iter().zip(&after).filter(|(before, after)| !Arc::ptr_eq(before, after)).count();
    assert_eq!((after.len(), decoded), (MANY, 1));

    client.delete("/many/s/i05000", None).await.unwrap();
    next(&mut watch, "one less", &|watch| set(watch).len() == MANY - 1).await;
    let lease = zookeeper.register(&Arc::new(changed)).await.unwrap();
    next(&mut watch, "one more", &|watch| set(watch).len() == MANY).await;
    assert_eq!(between.take(GET_CHILDREN).len(), 0);
    assert!(between.take(GET_DATA).iter().all(|path| path == "/many/s/i05000"));
    zookeeper.deregister(&lease).await.unwrap();
}

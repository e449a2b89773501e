//! TLS, to a real member that wants a certificate of its clients.

use callsign::tls::ClientTls;

use super::*;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");

fn data(name: &str) -> String {
    format!("{DATA}/{name}")
}

/// The certificate names `echo`, and members are called by an address.
fn trusting() -> ClientTls {
    ClientTls::new().ca_file(data("ca.pem")).server_name("echo")
}

fn with_identity(name: &str) -> ClientTls {
    trusting().identity_files(data(&format!("{name}.pem")), data(&format!("{name}.key")))
}

fn over_tls(real: &real::ZooKeeper, tls: ClientTls) -> ZooKeeper {
    ZooKeeper::builder(real.secure_members()).session(Duration::from_secs(4)).tls(tls).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_goes_over_tls_with_a_certificate_of_ours_and_survives_a_restart() {
    let Some(mut real) = real::ZooKeeper::start_secure(1) else { return };
    let members = real.secure_members().join(",");
    let (ca, cert, key) = (data("ca.pem"), data("client.pem"), data("client.key"));
    let uri = format!("zookeeper://{members}?session=20s&ca={ca}&cert={cert}&key={key}&server_name=echo");
    let registry = callsign::registry(&uri).unwrap();
    let log = Arc::new(Log::default());
    let registration = registered(registry.clone(), instance("a"), &log).await;
    let mut watch = registry.discovery().watch(&service());
    until(&mut watch, &["a"]).await;
    // Two sessions, and none is of the port without TLS.
    let dump = real.ask(0, "cons");
    assert_eq!((real.metric("zk_global_sessions"), dump.matches("sid=").count()), (2.0, 0), "{dump}");

    real.kill(0);
    until_outage(&mut watch, true).await;
    assert_eq!(seen(&watch), ["a"], "an outage removes nothing");
    real.restart(0);
    until_outage(&mut watch, false).await;
    until(&mut watch, &["a"]).await;
    put(&by_hand(&real).await, "/microservices/s/b", &instance("b").to_json()).await;
    until(&mut watch, &["a", "b"]).await;
    assert_eq!(log.count("LeaseLost"), 0, "the sessions live: {log:?}");
    registration.shutdown().await;
    until(&mut watch, &["b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_trusted_on_either_side_is_told_why() {
    let Some(real) = real::ZooKeeper::start_secure(1) else { return };
    let plain = ZooKeeper::builder(real.members()).tls(with_identity("client")).build().unwrap();
    let host = ClientTls::new().ca_file(data("ca.pem"));
    let other = ClientTls::new().ca_file(data("other-ca.pem")).server_name("echo");
    for (zookeeper, why) in [
        (over_tls(&real, host), "is not for 127.0.0.1"),
        (over_tls(&real, other), "from an issuer that is not among"),
        (over_tls(&real, trusting()), "wants a certificate of the client (that we have none)"),
        (over_tls(&real, with_identity("other-client")), "our certificate"),
        (over_tls(&real, with_identity("expired")), "our certificate"),
        (plain, "is it a plaintext server?"),
        (ZooKeeper::builder(["127.0.0.1:1"]).tls(trusting()).build().unwrap(), "cannot be dialled"),
    ] {
        let error = zookeeper.list(&service()).await.unwrap_err();
        assert!(format!("{error:#}").contains(why) && error.is_retryable(), "{why}: {error:#}");
    }
    let good = over_tls(&real, with_identity("client"));
    let lease = good.register(&Arc::new(instance("a"))).await.unwrap();
    assert_eq!(good.list(&service()).await.unwrap().instances().len(), 1);
    assert_eq!(good.renew(&lease).await.unwrap(), Renewal::Kept);
    good.deregister(&lease).await.unwrap();
}

/// A certificate that was replaced is taken for the next connection, without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_certificate_is_taken() {
    let Some(real) = real::ZooKeeper::start_secure(1) else { return };
    let dir = dir::TempDir::new();
    let (chain, key) = (dir.path().join("client.pem"), dir.path().join("client.key"));
    let place = |name: &str| {
        std::fs::copy(data(&format!("{name}.pem")), &chain).unwrap();
        std::fs::copy(data(&format!("{name}.key")), &key).unwrap();
    };
    place("other-client");
    let zookeeper = over_tls(&real, trusting().identity_files(&chain, &key));
    let mut watch = zookeeper.watch(&service());
    until_outage(&mut watch, true).await;
    place("client");
    until(&mut watch, &[]).await;
    until_outage(&mut watch, false).await;
}

/// A password beside the certificate: over TLS it may leave this machine. A member that is not there is passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_a_certificate_go_together() {
    let Some(real) = real::ZooKeeper::start_secure(1) else { return };
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let far = ZooKeeper::builder(["10.255.255.1:1"]).user("app", "secret").tls(with_identity("client")).build();
    assert!(far.is_ok(), "{far:?}");
    let members = ["127.0.0.1:1".to_owned()].into_iter().chain(real.secure_members());
    let builder = ZooKeeper::builder(members).user("app", "secret").tls(with_identity("client"));
    let zookeeper = builder.build().unwrap();
    let lease = zookeeper.register(&Arc::new(instance("a"))).await.unwrap();
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &["a"]).await;
    let nobody = by_hand(&real).await.get_data("/microservices/s/a").await;
    assert_eq!(nobody.unwrap_err(), zookeeper_client::Error::NoAuth);
    // Both may do all there: the user, and who has the certificate.
    let by_hand = Client::connector().with_auth("digest", b"app:secret").connect(&real.members()[0]).await.unwrap();
    let (acls, _) = by_hand.get_acl("/microservices/s/a").await.unwrap();
    let mut schemes: Vec<_> = acls.iter().map(|acl| acl.scheme()).collect();
    schemes.sort_unstable();
    assert_eq!(schemes, ["digest", "x509"], "{acls:?}");
    drop(by_hand);
    zookeeper.deregister(&lease).await.unwrap();
    until(&mut watch, &[]).await;
    assert!(real.metric("zk_global_sessions") >= 1.0);
    drop((watch, zookeeper));
    eventually("sessions are closed, not left to end", || real.metric("zk_global_sessions") == 0.0).await;
    eventually("and what carried them is gone", || tasks() <= before).await;
}

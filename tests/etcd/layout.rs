//! What stands in etcd, byte for byte, and what else may stand there.

use callsign::{Kind, registry::EtcdLayout};

use super::*;

const VALUE: &str = include_str!("../data/etcd/value.json");
const BARE: &str = include_str!("../data/etcd/value-bare.json");

#[tokio::test]
async fn kratos_writes_what_we_read_and_reads_what_we_write() {
    let Some(real) = shared() else { return };
    // Kratos's own namespace: this test alone is in it.
    let etcd = at(&real).build().unwrap();
    let service = "helloworld".parse().unwrap();
    let mut watch = etcd.watch(&service);
    until(&mut watch, &[]).await;
    real.put("/microservices/helloworld/inst-a", VALUE);
    real.put("/microservices/helloworld/inst-b", BARE);
    until(&mut watch, &["inst-a", "inst-b"]).await;
    let read = etcd.list(&service).await.unwrap().instances()[0].clone();
    assert_eq!(read.to_json(), VALUE);

    real.delete("/microservices/helloworld/inst-a");
    let lease = etcd.register(&read).await.unwrap();
    assert_eq!(lease.ttl(), Duration::from_secs(15));
    let (value, held_by) = real.read(0, "/microservices/helloworld/inst-a").unwrap();
    assert_eq!(value, VALUE);
    assert_eq!(format!("{held_by:016x}"), lease.token());
    etcd.deregister(&lease).await.unwrap();
    let ttl = real.ask(0, "/v3/lease/timetolive", &serde_json::json!({ "ID": held_by.to_string() }));
    assert_eq!(ttl["TTL"], "-1", "E12: the lease is revoked, not left to end");
}

/// E8, W4 of the list: one value that is no JSON, `null`, or a neighbour's stopped discovery.
#[tokio::test]
async fn a_bad_neighbour_costs_only_itself_and_is_told_once() {
    let Some(real) = shared() else { return };
    let log = Arc::new(Log::default());
    let etcd = at(&real).namespace("/bad").observer(log.clone()).build().unwrap();
    real.put("/bad/s/null", "null");
    real.put("/bad/s2/x", "not json");
    real.put("/bad/s/sub/x", "not json");
    etcd.register(&Arc::new(instance("good"))).await.unwrap();
    let mut watch = etcd.watch(&service());
    until(&mut watch, &["good"]).await;
    real.put("/bad/s/text", "not json");
    real.put("/bad/s/other", r#"{"id":"other","name":"t"}"#);
    let skips = |watch: &Watch, n| watch.view().snapshot().is_some_and(|set| set.skipped() == n);
    eventually("three are counted", || skips(&watch, 3)).await;
    assert_eq!(seen(&watch), ["good"]);
    assert_eq!(etcd.list(&service()).await.unwrap().skipped(), 3);
    etcd.register(&Arc::new(instance("more"))).await.unwrap();
    until(&mut watch, &["good", "more"]).await;
    assert_eq!(log.count("RecordSkipped"), 3, "{log:?}");
    assert_eq!(log.count("RecordSkipped /bad/s/null"), 1);
    real.delete("/bad/s/null");
    eventually("two are counted", || skips(&watch, 2)).await;
}

/// E7: a name with a slash was another service's key.
#[tokio::test]
async fn what_a_key_cannot_hold_is_refused_before_it_is_sent() {
    let etcd = Etcd::builder(["127.0.0.1:1"]).build().unwrap();
    for (service, id) in [("team/app", "a"), ("app", "h/1")] {
        let error = etcd.register(&Arc::new(instance_of(service, id))).await.unwrap_err();
        assert!(error.kind() == Kind::InvalidInput && error.to_string().contains("slash"), "{error:#}");
    }
    let mut watch = etcd.watch(&"team/app".parse().unwrap());
    until_outage(&mut watch, true).await;
    assert_eq!(watch.view().outage().unwrap().error().kind(), Kind::InvalidInput);
    assert_eq!(etcd.list(&"team/app".parse().unwrap()).await.unwrap_err().kind(), Kind::InvalidInput);
}

#[tokio::test]
async fn other_frameworks_layouts_are_read_and_written() {
    let Some(real) = shared() else { return };
    let grpc = at(&real).layout(EtcdLayout::Grpc).build().unwrap();
    real.put("grpc-app/10.0.0.5:9000", r#"{"Op":0,"Addr":"10.0.0.5:9000","Metadata":null}"#);
    let mut watch = grpc.watch(&"grpc-app".parse().unwrap());
    until(&mut watch, &["10.0.0.5:9000"]).await;
    let lease = grpc.register(&Arc::new(instance_of("grpc-app", "b"))).await.unwrap();
    assert_eq!(real.read(0, "grpc-app/b").unwrap().0, r#"{"Op":0,"Addr":"127.0.0.1:9","Metadata":null}"#);
    until(&mut watch, &["10.0.0.5:9000", "b"]).await;
    grpc.deregister(&lease).await.unwrap();
    until(&mut watch, &["10.0.0.5:9000"]).await;

    let uri = format!("etcd://{}?layout=gozero", real.endpoints()[0]);
    let zero = callsign::registry(&uri).unwrap();
    real.put("zero.rpc/7587883443", "10.0.0.6:8080");
    let mut watch = zero.discovery().watch(&"zero.rpc".parse().unwrap());
    until(&mut watch, &["7587883443"]).await;
    let address = watch.view().snapshot().unwrap().instances()[0].addresses()[0].to_string();
    assert_eq!(address, "grpc://10.0.0.6:8080");
    zero.registrar().unwrap().register(&Arc::new(instance_of("zero.rpc", "b"))).await.unwrap();
    assert_eq!(real.read(0, "zero.rpc/b").unwrap().0, "127.0.0.1:9");
}

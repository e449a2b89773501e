//! Other frameworks' nodes, at a real member.

use callsign::{Status, registry::ZooKeeperLayout};

use super::*;

const CURATOR: &str = include_str!("../data/zookeeper/curator.json");
const DISABLED: &str = include_str!("../data/zookeeper/curator-disabled.json");
const SPRING: &str = include_str!("../data/zookeeper/spring.json");

/// But for the time, which is of the registration.
async fn data(client: &Client, path: &str) -> String {
    let (data, stat) = client.get_data(path).await.unwrap();
    assert_ne!(stat.ephemeral_owner, 0, "it goes with its owner");
    let mut value: serde_json::Value = serde_json::from_slice(&data).unwrap();
    assert!(value["registrationTimeUTC"].as_u64().unwrap() > 1_700_000_000_000, "{value}");
    value["registrationTimeUTC"] = 1_618_899_361_271u64.into();
    value.to_string()
}

fn sorted(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text).unwrap().to_string()
}

#[tokio::test]
async fn curator_s_and_spring_s_are_read_and_written() {
    let Some(real) = shared() else { return };
    let client = by_hand(&real).await;
    let service = "helloworld".parse().unwrap();
    for (layout, recorded) in [(ZooKeeperLayout::Curator, CURATOR), (ZooKeeperLayout::Spring, SPRING)] {
        let root = format!("/layout-{layout:?}");
        let zookeeper = at(&real).root(&root).layout(layout).build().unwrap();
        let mut watch = zookeeper.watch(&service);
        until(&mut watch, &[]).await;
        put(&client, &format!("{root}/helloworld/inst-a"), recorded).await;
        until(&mut watch, &["inst-a"]).await;
        let one = watch.view().snapshot().unwrap().instances()[0].clone();
        assert_eq!((one.version(), one.locality().zone(), one.status()), ("v1.2.3", Some("sh001"), Status::Up));

        // Taken over: what stands there then is what was there.
        let lease = zookeeper.register(&one).await.unwrap();
        assert_eq!(data(&client, &format!("{root}/helloworld/inst-a")).await, sorted(recorded));
        assert_eq!(zookeeper.renew(&lease).await.unwrap(), Renewal::Kept);
        // Out of service, but there.
        put(&client, &format!("{root}/helloworld/inst-b"), &DISABLED.replace("inst-a", "inst-b")).await;
        until(&mut watch, &["inst-a", "inst-b"]).await;
        assert_eq!(watch.view().snapshot().unwrap().instances()[1].status(), Status::Down);
        put(&client, &format!("{root}/helloworld/kratos"), &instance_of("helloworld", "kratos").to_json()).await;
        eventually("Kratos's is none", || watch.view().snapshot().unwrap().skipped() == 1).await;
        zookeeper.deregister(&lease).await.unwrap();
        until(&mut watch, &["inst-b"]).await;
    }
}

#[tokio::test]
async fn a_layout_is_chosen_by_the_uri_and_refuses_what_it_cannot_hold() {
    let Some(real) = shared() else { return };
    let registry = callsign::registry(&format!("zk://{}?layout=spring", real.members()[0])).unwrap();
    let registration = registered(registry.clone(), instance_of("chosen", "a"), &Arc::default()).await;
    let text = data(&by_hand(&real).await, "/services/chosen/a").await;
    assert!(text.contains("ZookeeperInstance"), "{text}");
    registration.shutdown().await;

    let two = instance("a").to_builder().address("grpc://127.0.0.2:9".parse().unwrap()).build().unwrap();
    let error = registry.registrar().unwrap().register(&Arc::new(two)).await.unwrap_err();
    assert!(error.kind() == Kind::InvalidInput && error.to_string().contains("more than one"), "{error}");
}

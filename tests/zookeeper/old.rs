//! A server before 3.6: a real one, behind what makes it not know watches that stay.

use between::{ADD_WATCH, GET_CHILDREN, GET_DATA};

use super::*;

const SESSION: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_server_without_watches_that_stay_is_followed_by_those_that_fire_once() {
    let Some(real) = shared() else { return };
    let between = Between::old(&real).await;
    let zookeeper = between.registry("/old", SESSION);
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &[]).await;
    let client = by_hand(&real).await;
    put(&client, "/old/s/a", &instance("a").to_json()).await;
    until(&mut watch, &["a"]).await;
    put(&client, "/old/s/b", &instance("b").to_json()).await;
    until(&mut watch, &["a", "b"]).await;
    client.set_data("/old/s/b", instance("c").to_json().as_bytes(), None).await.unwrap();
    until(&mut watch, &["a", "c"]).await;
    client.delete("/old/s/a", None).await.unwrap();
    until(&mut watch, &["c"]).await;
    client.delete("/old/s/b", None).await.unwrap();
    client.delete("/old/s", None).await.unwrap();
    eventually("the service is gone", || watch.view().is_not_found()).await;
    put(&client, "/old/s/d", &instance("d").to_json()).await;
    until(&mut watch, &["d"]).await;
}

/// A change read all nodes of the service again.
#[tokio::test]
async fn one_change_at_an_old_server_reads_one_node() {
    let Some(real) = shared() else { return };
    let between = Between::old(&real).await;
    let client = by_hand(&real).await;
    let mut ids: Vec<_> = (0..100).map(|n| format!("i{n:02}")).collect();
    for id in &ids {
        put(&client, &format!("/old-one/s/{id}"), &instance(id).to_json()).await;
    }
    let zookeeper = between.registry("/old-one", SESSION);
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &strs(&ids)).await;
    assert_eq!((between.take(GET_DATA).len(), between.take(GET_CHILDREN).len()), (100, 1));

    // Twice the same: its watch is set anew.
    for data in ["x", "y"] {
        client.set_data("/old-one/s/i07", instance(data).to_json().as_bytes(), None).await.unwrap();
        ids.retain(|id| id != "i07" && id != "x");
        ids.push(data.to_owned());
        until(&mut watch, &strs(&ids)).await;
        assert_eq!(between.take(GET_DATA), ["/old-one/s/i07"]);
        assert_eq!(between.take(GET_CHILDREN).len(), 0);
    }
    put(&client, "/old-one/s/z", &instance("z").to_json()).await;
    ids.push("z".to_owned());
    until(&mut watch, &strs(&ids)).await;
    assert_eq!((between.take(GET_DATA), between.take(GET_CHILDREN).len()), (vec!["/old-one/s/z".to_owned()], 1));
    client.delete("/old-one/s/z", None).await.unwrap();
    ids.pop();
    until(&mut watch, &strs(&ids)).await;
    // None, or one where the two watches that fire are not seen at once.
    assert!(between.take(GET_DATA).len() <= 1);
}

fn strs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

/// ZOOKEEPER-4466: watches of both kinds on one path take each other off. And Z7: what changes without a connection.
#[tokio::test]
async fn a_session_at_an_old_server_has_one_kind_of_watches_and_misses_nothing() {
    let Some(real) = shared() else { return };
    let between = Between::old(&real).await;
    let client = by_hand(&real).await;
    put(&client, "/old-kinds/s/a", &instance("a").to_json()).await;
    put(&client, "/old-kinds/s/b", &instance("b").to_json()).await;
    let zookeeper = between.registry("/old-kinds", SESSION);
    let mut first = zookeeper.watch(&service());
    until(&mut first, &["a", "b"]).await;
    // The server ends the connection with its answer, which may be lost by that: then it is asked again.
    assert!(!between.take(ADD_WATCH).is_empty());
    let mut second = zookeeper.watch(&service());
    until(&mut second, &["a", "b"]).await;

    between.cut(true);
    for watch in [&mut first, &mut second] {
        until_outage(watch, true).await;
        assert_eq!(seen(watch), ["a", "b"], "an outage removes nothing");
    }
    client.delete("/old-kinds/s/a", None).await.unwrap();
    client.set_data("/old-kinds/s/b", instance("c").to_json().as_bytes(), None).await.unwrap();
    put(&client, "/old-kinds/s/d", &instance("d").to_json()).await;
    between.cut(false);
    for watch in [&mut first, &mut second] {
        until(watch, &["c", "d"]).await;
        until_outage(watch, false).await;
    }
    // And they go on.
    client.delete("/old-kinds/s/d", None).await.unwrap();
    for watch in [&mut first, &mut second] {
        until(watch, &["c"]).await;
    }
    assert_eq!(between.take(ADD_WATCH).len(), 0, "what it answered holds for this session");
}

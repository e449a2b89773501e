//! What goes wrong between two requests, again and again, or for longer than a session.

use between::{CREATE, GET_CHILDREN, GET_DATA};

use super::*;

/// Z6: a node that went between the list and its reading failed the whole list.
#[tokio::test]
async fn a_node_that_goes_between_the_list_and_its_reading_is_gone() {
    let Some(real) = shared() else { return };
    let client = by_hand(&real).await;
    for id in ["a", "b", "c"] {
        put(&client, &format!("/z6/s/{id}"), &instance(id).to_json()).await;
    }
    let between = Between::meddling(&real, {
        let client = client.clone();
        move |kind, path, _| {
            let client = (kind == GET_DATA && path == "/z6/s/b").then(|| client.clone());
            Box::pin(async move {
                if let Some(client) = client {
                    let _ = client.delete("/z6/s/b", None).await;
                }
            })
        }
    })
    .await;
    let zookeeper = between.registry("/z6", Duration::from_secs(10));
    let listed = zookeeper.list(&service()).await.unwrap();
    assert_eq!(between.take(GET_DATA).len(), 3, "it was listed, and read");
    assert_eq!((listed.instances().len(), listed.skipped()), (2, 0));
    put(&client, "/z6/s/b", &instance("b").to_json()).await;
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &["a", "c"]).await;
    assert!(watch.view().outage().is_none());
}

/// Z7, ZOOKEEPER-4698: watches that stay are not told what happened without a connection. Z4, #3517: and Kratos's ended
/// with the connection.
#[tokio::test]
async fn what_changes_without_a_connection_is_seen_after_it() {
    let Some(real) = shared() else { return };
    let between = Between::new(&real).await;
    let client = by_hand(&real).await;
    put(&client, "/z7/s/a", &instance("a").to_json()).await;
    put(&client, "/z7/s/b", &instance("b").to_json()).await;
    let zookeeper = between.registry("/z7", Duration::from_secs(20));
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &["a", "b"]).await;
    for round in 0..3 {
        between.cut(true);
        until_outage(&mut watch, true).await;
        client.delete("/z7/s/a", None).await.unwrap();
        client.set_data("/z7/s/b", instance(&format!("c{round}")).to_json().as_bytes(), None).await.unwrap();
        between.cut(false);
        until(&mut watch, &[&format!("c{round}")]).await;
        until_outage(&mut watch, false).await;
        // The watch of the connection that there is now.
        put(&client, "/z7/s/a", &instance("a").to_json()).await;
        until(&mut watch, &["a", &format!("c{round}")]).await;
    }
}

/// Z4: errors that stay made a hot loop.
#[tokio::test]
async fn an_error_that_stays_is_asked_about_ever_less_often() {
    let Some(real) = shared() else { return };
    let between = Between::new(&real).await;
    let owner = at(&real).root("/z4").session(Duration::from_secs(10)).user("app", "right").build().unwrap();
    let lease = owner.register(&Arc::new(instance("a"))).await.unwrap();
    let zookeeper = between.registry("/z4", Duration::from_secs(10));
    let mut watch = zookeeper.watch(&service());
    until_outage(&mut watch, true).await;
    let begun = Instant::now();
    while between.take(GET_CHILDREN).is_empty() {
        assert!(begun.elapsed() < BOUND);
        sleep(Duration::from_millis(10)).await;
    }
    // Pauses are drawn: half a second at first, on the average, and 1.6 times as long each time.
    sleep(Duration::from_secs(3)).await;
    let asked = between.take(GET_CHILDREN).len();
    assert!(asked <= 8, "{asked} in 3 s");
    eventually("it is asked again", || !between.take(GET_CHILDREN).is_empty()).await;
    assert!(between.requests() < 60, "{}", between.requests());

    // And so are connections that nobody takes.
    between.cut(true);
    let before = between.connections();
    sleep(Duration::from_secs(3)).await;
    let tried = between.connections() - before;
    assert!(tried <= 15, "{tried} in 3 s");
    eventually("it is tried again", || between.connections() > before).await;
    owner.deregister(&lease).await.unwrap();
}

/// Z1, #2235: the first try that failed after the end of a session was the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registers_again_however_often_that_fails() {
    let Some(real) = shared() else { return };
    let between = Between::new(&real).await;
    let session = Duration::from_secs(2);
    let (zookeeper, log) = (between.registry("/z1", session), Arc::new(Log::default()));
    let registration = registered(zookeeper, instance("a"), &log).await;
    let client = by_hand(&real).await;
    let owner = async || client.check_stat("/z1/s/a").await.unwrap().map(|stat| stat.ephemeral_owner);
    let first = owner().await.unwrap();

    between.cut(true);
    eventually("it is lost", || log.count("LeaseLost") > 0).await;
    eventually("several tries fail", || log.count("RegisterFailed") >= 3).await;
    assert_eq!(owner().await, None, "the session has ended");
    between.cut(false);
    eventually("it is there again", || log.count("Registered") == 2).await;
    assert_ne!(owner().await, Some(first));
    registration.shutdown().await;
    assert_eq!(owner().await, None);
}

/// Z1: the loop that registers again outlived the deregistration, and the instance came back from the dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deregistered_while_it_was_away_does_not_come_back() {
    let Some(real) = shared() else { return };
    let between = Between::new(&real).await;
    let (zookeeper, log) = (between.registry("/zombie", Duration::from_secs(2)), Arc::new(Log::default()));
    let registration = registered(zookeeper.clone(), instance("a"), &log).await;
    between.cut(true);
    eventually("it tries again", || log.count("RegisterFailed") >= 1).await;
    registration.shutdown().await;
    let client = by_hand(&real).await;
    between.cut(false);
    // Whoever is left has the time to come back: three of the longest pauses so far.
    let (before, begun) = (between.connections(), Instant::now());
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(client.check_stat("/zombie/s/a").await.unwrap(), None);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(between.connections(), before, "nobody is left");
    drop(zookeeper);
}

/// Z2, #2245, dubbo #5135: who creates its node without hearing so finds it there: it is its own, and stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_ours_whose_making_was_not_heard_of_is_kept() {
    let Some(real) = shared() else { return };
    let between = Between::new(&real).await;
    let zookeeper = between.registry("/z2", Duration::from_secs(3));
    let client = by_hand(&real).await;
    put(&client, "/z2/s/x", "x").await;
    between.lose_answer(CREATE, "/z2/s/a");
    let lease = zookeeper.register(&Arc::new(instance("a"))).await.unwrap();
    assert_eq!(between.take(CREATE), ["/z2/s/a", "/z2/s/a"]);
    let (data, stat) = client.get_data("/z2/s/a").await.unwrap();
    assert_eq!(String::from_utf8(data).unwrap(), instance("a").to_json());
    assert_eq!((format!("{:016x}", stat.ephemeral_owner), stat.version), (lease.token().to_owned(), 1));
    assert_eq!(zookeeper.renew(&lease).await.unwrap(), Renewal::Kept);
    zookeeper.deregister(&lease).await.unwrap();
}

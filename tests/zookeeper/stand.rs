//! What every registry must stand.

use super::{link::Link, *};

const LONG: Duration = Duration::from_secs(40);

async fn link_to(real: &real::ZooKeeper) -> Link {
    Link::to(real.members()[0].rsplit_once(':').unwrap().1.parse().unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instance_of_a_killed_process_ends_with_its_lease() {
    let Some(real) = shared() else { return };
    let uri = format!("zookeeper://{}?root=/killed&session=4s", real.members()[0]);
    matrix::the_owner_is_killed(&uri, Duration::from_secs(4)).await;
}

/// Z1: a zombie registered again what was deregistered.
#[tokio::test]
async fn no_renewal_brings_one_back() {
    let Some(real) = shared() else { return };
    matrix::no_renewal_brings_one_back(&at(&real).root("/raced").session(LONG).build().unwrap().into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_churn() {
    let Some(real) = shared() else { return };
    matrix::a_thousand_churn(|| at(&real).root("/churn").session(LONG).build().unwrap().into(), 200).await;
}

#[tokio::test]
async fn two_services_of_a_process() {
    let Some(real) = shared() else { return };
    matrix::two_services_of_a_process(&at(&real).root("/two").build().unwrap().into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_share_a_watch() {
    let Some(real) = shared() else { return };
    let link = link_to(&real).await;
    let uri = |authority: &str, path: &str| format!("zookeeper://{authority}{path}?root=/shared");
    matrix::channels_share_a_watch(&link, &real.members()[0], uri).await;
}

#[tokio::test]
async fn a_crowd_comes_back_spread() {
    let Some(real) = shared() else { return };
    let link = link_to(&real).await;
    let open = || ZooKeeper::builder([link.endpoint()]).root("/crowd").build().unwrap().into();
    matrix::a_crowd_comes_back_spread(&link, open).await;
}

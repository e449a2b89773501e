//! What every registry must stand.

use super::{link::Link, *};

const LONG: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instance_of_a_killed_process_ends_with_its_lease() {
    let Some(real) = shared() else { return };
    let uri = format!("etcd://{}?namespace=/killed&ttl=3s", real.endpoints()[0]);
    matrix::the_owner_is_killed(&uri, Duration::from_secs(3)).await;
}

/// E12: a renewal under way put the key back.
#[tokio::test]
async fn no_renewal_brings_one_back() {
    let Some(real) = shared() else { return };
    matrix::no_renewal_brings_one_back(&at(&real).namespace("/raced").ttl(LONG).build().unwrap().into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_churn() {
    let Some(real) = shared() else { return };
    matrix::a_thousand_churn(|| at(&real).namespace("/churn").ttl(LONG).build().unwrap().into(), 200).await;
}

/// E10, kratos #3509, and E11: the end of one service's lease was the end of the other's.
#[tokio::test]
async fn two_services_of_a_process() {
    let Some(real) = shared() else { return };
    matrix::two_services_of_a_process(&at(&real).namespace("/two").build().unwrap().into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_share_a_watch() {
    let Some(real) = shared() else { return };
    let link = Link::to(real.port(0)).await;
    let uri = |authority: &str, path: &str| format!("etcd://{authority}{path}?namespace=/shared");
    matrix::channels_share_a_watch(&link, &real.endpoints()[0], uri).await;
}

/// E14, kratos #2398: a fleet that lost its registry stampeded.
#[tokio::test]
async fn a_crowd_comes_back_spread() {
    let Some(real) = shared() else { return };
    let link = Link::to(real.port(0)).await;
    matrix::a_crowd_comes_back_spread(&link, || {
        Etcd::builder([link.endpoint()]).namespace("/crowd").build().unwrap().into()
    })
    .await;
}

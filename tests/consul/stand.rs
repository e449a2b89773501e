//! What every registry must stand.

use super::{link::Link, *};

const LONG: Duration = Duration::from_secs(600);

fn long(real: &real::Consul) -> Consul {
    Consul::builder([real.address()]).ttl(LONG).build().unwrap()
}

async fn link_to(real: &real::Consul) -> Link {
    Link::to(real.address().rsplit_once(':').unwrap().1.parse().unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instance_of_a_killed_process_ends_with_its_lease() {
    let Some(real) = real::Consul::start() else { return };
    let uri = format!("consul://{}?ttl=3s", real.address());
    matrix::the_owner_is_killed(&uri, Duration::from_secs(3)).await;
}

/// C8: a heartbeat under way brought the check back.
#[tokio::test]
async fn no_renewal_brings_one_back() {
    let Some(real) = real::Consul::start() else { return };
    matrix::no_renewal_brings_one_back(&long(&real).into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_churn() {
    let Some(real) = real::Consul::start() else { return };
    matrix::a_thousand_churn(|| long(&real).into(), 40).await;
}

#[tokio::test]
async fn two_services_of_a_process() {
    let Some(real) = real::Consul::start() else { return };
    matrix::two_services_of_a_process(&at(&real).into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_share_a_watch() {
    let Some(real) = real::Consul::start() else { return };
    let link = link_to(&real).await;
    let uri = |authority: &str, path: &str| format!("consul://{authority}{path}");
    matrix::channels_share_a_watch(&link, &real.address(), uri).await;
}

#[tokio::test]
async fn a_crowd_comes_back_spread() {
    let Some(real) = real::Consul::start() else { return };
    let link = link_to(&real).await;
    matrix::a_crowd_comes_back_spread(&link, || Consul::builder([link.endpoint()]).build().unwrap().into()).await;
}

//! What every registry must stand, as far as Kubernetes can be made to.

use std::collections::BTreeSet;

use futures_util::future::{join, join_all};
use tokio::task::yield_now;

use super::*;

const SLICE: usize = 100;

/// A thousand endpoints in ten slices come, change and go: those that stay are never missed, and what is shown in the
/// end is what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_churn() {
    let Some(real) = shared() else { return };
    let mut watch = services(&real).watch(&name("churning"));
    until(&mut watch, &[]).await;
    let address = |slice: usize, n: usize| format!("10.9.{slice}.{n}");
    // The first of each slice stays; of the others a part is there in each turn.
    let there = |slice: usize, turn: usize| {
        (0..SLICE).filter(move |n| *n == 0 || turn == 0 || (n * 7 + turn * 13 + slice) % 5 > 1).collect::<Vec<_>>()
    };
    let body = |slice: usize, turn: usize| {
        let addresses: Vec<_> = there(slice, turn).into_iter().map(|n| address(slice, n)).collect();
        super::slice(
            &format!("churning-{slice}"),
            "churning",
            &addresses.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    };
    let shown = |watch: &Watch| {
        let view = watch.view();
        let set = view.snapshot().into_iter().flat_map(|set| set.instances());
        set.map(|one| one.addresses()[0].host().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let truth = |turn: usize| {
        (0..10)
            .flat_map(|slice| there(slice, turn).into_iter().map(move |n| address(slice, n)))
            .collect::<BTreeSet<_>>()
    };
    (0..10).for_each(|slice| drop(real.ask("POST", SLICES, JSON, &body(slice, 0).to_string())));
    eventually("all are there", || shown(&watch).len() == 1_000).await;

    const TURNS: usize = 10;
    let turns = (1..=TURNS).flat_map(|turn| (0..10).map(move |slice| (slice, turn)));
    let bodies: Vec<_> = turns.map(|(slice, turn)| (slice, body(slice, turn).to_string())).collect();
    let server = real.clone();
    let writer = tokio::task::spawn_blocking(move || {
        for (slice, body) in bodies {
            server.ask("PUT", &format!("{SLICES}/churning-{slice}"), JSON, &body);
        }
    });
    let mut sets = 0;
    while !writer.is_finished() {
        let Ok(Some(_)) = timeout(Duration::from_millis(50), watch.next()).await else { continue };
        let set = shown(&watch);
        assert!((0..10).all(|slice| set.contains(&address(slice, 0))), "one that stayed was missed");
        sets += 1;
    }
    writer.await.unwrap();
    eventually("the end is shown", || shown(&watch) == truth(TURNS)).await;
    assert!(sets > TURNS, "only {sets} sets were seen");
}

/// Deregistering while a renewal is under way, a thousand times: nothing comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_renewal_brings_one_back() {
    let Some(real) = shared() else { return };
    let pod = |n: usize| {
        let (pod, service) = (format!("p-raced-{n}"), format!("raced-{n}"));
        real.make_pod(&pod, &[9000]);
        let kubernetes = pods_of(&real).with_pod(pod);
        async move {
            let instance = Arc::new(instance(&service, "a", 9000));
            for round in 0..250 {
                let lease = kubernetes.register(&instance).await.unwrap();
                let later = async {
                    for _ in 0..round % 10 {
                        yield_now().await;
                    }
                    kubernetes.deregister(&lease).await.unwrap();
                };
                let (renewed, ()) = join(kubernetes.renew(&lease), later).await;
                renewed.unwrap();
                let left = kubernetes.list(instance.service()).await.unwrap();
                assert!(left.instances().is_empty(), "round {round}: {left:?}");
            }
        }
    };
    join_all((0..4).map(pod)).await;
}

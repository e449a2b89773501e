use std::collections::BTreeMap;

use futures_util::FutureExt;
use proptest::prelude::*;
use tower::discover::Discover;

use super::*;
use crate::{
    instance::ServiceInstance,
    registry::{Snapshot, Update, WatchSender},
};

fn instance(id: usize, weight: u32) -> Arc<ServiceInstance> {
    let address = format!("grpc://h{id}:1").parse().expect("valid");
    let builder = ServiceInstance::builder("s", format!("i{id}")).expect("valid").address(address).weight(weight);
    Arc::new(builder.build().expect("valid"))
}

fn set(instances: &[(usize, u32)]) -> Update {
    Update::Instances(Snapshot::new(instances.iter().map(|(id, weight)| instance(*id, *weight))))
}

fn resolver() -> (WatchSender, Resolver) {
    let (sender, watch) = Watch::channel();
    (sender, Resolver::new("s".parse().expect("valid"), watch))
}

/// What the stream yields now, as `+1`, `-1`.
fn changes(resolver: &mut Resolver) -> Vec<String> {
    let mut changes = Vec::new();
    while let Some(Some(Ok(change))) = futures_util::StreamExt::next(resolver).now_or_never() {
        changes.push(match change {
            Change::Insert(key, endpoint) => format!("+{key}*{}", endpoint.instance().weight()),
            Change::Remove(key) => format!("-{key}"),
        });
    }
    changes
}

#[test]
fn is_a_discover_that_cannot_fail() {
    fn check<D: Discover<Key = EndpointKey, Service = Endpoint, Error = Infallible>>(_: &D) {}
    check(&resolver().1);
}

#[test]
fn inserts_come_before_removes_and_a_weight_replaces_nothing() {
    let (sender, mut resolver) = resolver();
    assert!(changes(&mut resolver).is_empty() && !resolver.state().is_resolved());
    sender.send(set(&[(1, 100), (2, 100)]));
    assert_eq!(changes(&mut resolver), ["+h1:1*100", "+h2:1*100"]);
    sender.send(set(&[(2, 100), (3, 7)]));
    assert_eq!(changes(&mut resolver), ["+h3:1*7", "-h1:1"]);
    sender.send(set(&[(2, 5), (3, 7)]));
    assert_eq!(changes(&mut resolver), ["+h2:1*5"]);
}

#[test]
fn an_outage_and_the_end_of_the_watch_remove_nothing() {
    let (sender, mut resolver) = resolver();
    sender.send(set(&[(1, 1)]));
    changes(&mut resolver);
    sender.send(Update::Unavailable(Error::unavailable("gone")));
    assert!(changes(&mut resolver).is_empty());
    assert!(resolver.state().outage().is_some());
    drop(sender);
    assert!(changes(&mut resolver).is_empty(), "and the stream goes on");
    assert_eq!(resolver.state().endpoints(), 1);
}

#[test]
fn says_why_there_is_nothing() {
    let (sender, mut resolver) = resolver();
    let mut expect = |why: &str, update: Option<Update>| {
        update.into_iter().for_each(|update| sender.send(update));
        changes(&mut resolver);
        let missing = format!("{:#}", resolver.state().missing());
        assert!(missing.contains(why), "{missing}");
    };
    expect("not answered yet", None);
    expect("does not answer: no route", Some(Update::Unavailable(Error::unavailable("no route"))));
    expect("no such service", Some(Update::NotFound));
    expect("no instance of it", Some(set(&[])));
    let bare = ServiceInstance::builder("s", "bare").and_then(|builder| builder.build()).expect("valid");
    expect("1 instance known, none with an address", Some(Update::Instances(Snapshot::new([Arc::new(bare)]))));
}

#[test]
fn of_two_with_one_address_the_first_id_counts() {
    let (sender, mut resolver) = resolver();
    let twin = Arc::new(instance(1, 9).to_builder().build().expect("valid"));
    let other = ServiceInstance::builder("s", "z").expect("valid").addresses(twin.addresses().iter().cloned());
    sender.send(Update::Instances(Snapshot::new([Arc::new(other.build().expect("valid")), twin])));
    assert_eq!(changes(&mut resolver), ["+h1:1*9"]);
}

proptest! {
    #[test]
    fn what_was_streamed_adds_up_to_the_set(
        sets in proptest::collection::vec(proptest::collection::btree_map(0usize..8, 1u32..4, 0..8), 1..12),
        read in proptest::collection::vec(any::<bool>(), 12),
    ) {
        let (sender, mut resolver) = resolver();
        let mut held = BTreeMap::new();
        for (set, read) in sets.iter().zip(read) {
            sender.send(Update::Instances(Snapshot::new(set.iter().map(|(id, weight)| instance(*id, *weight)))));
            if !read {
                continue;
            }
            let mut removing = false;
            while let Some(Some(Ok(change))) = futures_util::StreamExt::next(&mut resolver).now_or_never() {
                match change {
                    Change::Insert(key, endpoint) => {
                        prop_assert!(!removing, "an insert after a remove");
                        prop_assert!(held.get(&key) != Some(&endpoint), "no news");
                        held.insert(key, endpoint);
                    }
                    Change::Remove(key) => {
                        removing = true;
                        prop_assert!(held.remove(&key).is_some(), "removed what was not there");
                    }
                }
            }
            let want: Vec<_> = set.iter().map(|(id, weight)| (format!("i{id}"), *weight)).collect();
            let have: Vec<_> = held.values().map(|endpoint| {
                (endpoint.instance().id().to_string(), endpoint.instance().weight().get())
            }).collect();
            prop_assert_eq!(want, have);
        }
    }
}

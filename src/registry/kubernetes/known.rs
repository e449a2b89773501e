//! What is known of one service: each object is read once, when it comes.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    codec::Pod,
    slices::{self, Slice},
    subject::Subject,
};
use crate::{
    error::{Error, Kind, Result},
    instance::ServiceInstance,
    registry::Snapshot,
};

/// An object as far as it matters.
enum Item {
    Slice(Slice),
    Pod(Arc<ServiceInstance>),
    /// A Pod that does not serve.
    Idle,
    Bad(Error),
}

pub(super) struct Known {
    subject: Subject,
    items: BTreeMap<String, Item>,
    /// So many are held.
    most: usize,
    /// Whether there are more.
    beyond: bool,
}

impl Known {
    pub(super) fn new(subject: Subject, most: usize) -> Self {
        Self { subject, items: BTreeMap::new(), most, beyond: false }
    }

    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Whole, so that nothing is missing in between.
    pub(super) fn replace(&mut self, objects: Vec<Value>) {
        self.beyond = objects.len() > self.most;
        self.items = objects.into_iter().take(self.most).map(|object| self.read(object)).collect();
    }

    pub(super) fn put(&mut self, object: Value) {
        let (name, item) = self.read(object);
        if self.items.len() < self.most || self.items.contains_key(&name) {
            self.items.insert(name, item);
        } else {
            self.beyond = true;
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.items.remove(name);
    }

    fn read(&self, object: Value) -> (String, Item) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let item = match &self.subject {
            Subject::Slices { service, query, choice } => Slice::read(object, service, query, choice).map(Item::Slice),
            Subject::Pods { .. } => pod(object),
        };
        (name, item.unwrap_or_else(Item::Bad))
    }

    /// The instances, and which records are skipped and why.
    pub(super) fn snapshot(&self) -> (Snapshot, BTreeMap<String, Error>) {
        let slices = self.items.iter().filter_map(|(name, item)| match item {
            Item::Slice(slice) => Some((name, slice)),
            _ => None,
        });
        let (mut instances, mut skipped) = slices::merge(slices);
        for (name, item) in &self.items {
            match item {
                Item::Pod(instance) => instances.push(instance.clone()),
                Item::Bad(error) => drop(skipped.insert(name.clone(), error.clone())),
                Item::Slice(_) | Item::Idle => {}
            }
        }
        if self.beyond {
            let context = format!("there are more than {} objects: some are not read", self.most);
            skipped.insert("*".to_owned(), Error::new(Kind::Exhausted, context));
        }
        (Snapshot::new(instances).with_skipped(skipped.len()), skipped)
    }
}

fn pod(object: Value) -> Result<Item> {
    let pod = Pod::read(object)?;
    if pod.is_serving() { pod.instance().map(Item::Pod) } else { Ok(Item::Idle) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::Mode, *};

    const MANY: usize = 10_000;

    fn known(mode: Mode, objects: impl Iterator<Item = Value>) -> Known {
        let subject = Subject::new(mode, &"s".parse().expect("a name"), &slices::Choice::default());
        let mut known = Known::new(subject.expect("a service"), 20_000);
        known.replace(objects.collect());
        assert_eq!(known.snapshot().0.instances().len(), MANY);
        known
    }

    /// How many instances are others than before, after one object came.
    fn made_anew(known: &mut Known, object: Value) -> usize {
        let (before, _) = known.snapshot();
        known.put(object);
        let (after, skipped) = known.snapshot();
        assert!(skipped.is_empty() && after.instances().len() == MANY, "{skipped:?}");
        let pairs = before.instances().iter().zip(after.instances());
        pairs.filter(|(before, after)| !Arc::ptr_eq(before, after)).count()
    }

    fn pod_of(n: usize, note: &str) -> Value {
        json!({
            "metadata": {"name": format!("p-{n}"), "labels": {"kratos-service-app": "s"},
                "annotations": {"kratos-service-metadata": json!({"note": note}).to_string()}},
            "spec": {"containers": [{"ports": [{"containerPort": 9000, "name": "grpc"}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", n / 250, n % 250),
                "conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    #[test]
    fn what_is_more_than_is_held_is_counted() {
        let subject = Subject::new(Mode::Pods, &"s".parse().expect("a name"), &slices::Choice::default());
        let mut known = Known::new(subject.expect("a service"), 3);
        let counts = |known: &Known| {
            let (set, skipped) = known.snapshot();
            (set.instances().len(), set.skipped(), skipped.contains_key("*"))
        };
        known.replace((0..2).map(|n| pod_of(n, "")).collect());
        known.put(pod_of(2, ""));
        assert_eq!(counts(&known), (3, 0, false));
        known.put(pod_of(3, ""));
        assert_eq!(counts(&known), (3, 1, true));
        known.replace((0..4).map(|n| pod_of(n, "")).collect());
        assert_eq!(counts(&known), (3, 1, true));
        known.replace(vec![pod_of(9, "")]);
        assert_eq!(counts(&known), (1, 0, false));
    }

    /// All but its own Pod's or slice's is neither parsed nor built again.
    #[test]
    fn a_change_costs_what_changed_and_not_all_that_is_there() {
        let mut pods = known(Mode::Pods, (0..MANY).map(|n| pod_of(n, "old")));
        assert_eq!(made_anew(&mut pods, pod_of(7, "new")), 1);

        let slice = |n: usize, zone: &str| {
            let endpoint = |m: usize| json!({"addresses": [format!("10.1.{n}.{m}")], "zone": zone});
            let endpoints: Vec<_> = (0..100).map(endpoint).collect();
            json!({"metadata": {"name": format!("s-{n}")}, "addressType": "IPv4", "ports": [{"port": 9000}],
                "endpoints": endpoints})
        };
        let mut slices = known(Mode::Slices, (0..MANY / 100).map(|n| slice(n, "old")));
        assert_eq!(made_anew(&mut slices, slice(7, "new")), 100, "a slice comes whole");
    }
}

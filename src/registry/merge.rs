//! Several registries as one.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{
    StreamExt,
    future::join_all,
    stream::{self, SelectAll},
};
use tokio::time::Instant;

use super::{BoxFuture, Discovery, Outage, Registry, Snapshot, View, Watch, WatchSender};
use crate::{
    error::{Error, Kind, Result},
    instance::ServiceName,
};

/// Several registries as one: for a move from one to another, and for several datacenters.
///
/// - An instance is there if any of them knows it; of one id, that of the first registry counts.
/// - A set is known as soon as one of them answered. That there is *no* instance is known only
///   when all of them did.
/// - A registry that does not answer keeps the set it had, and the whole is marked as in outage.
///
/// Its members should be [`Resilient`](super::Resilient), as [opened](crate::registry()) ones are: one
/// whose watch ends counts as in outage from then on.
#[derive(Debug, Clone)]
pub struct Merged {
    members: Arc<[Registry]>,
}

impl Merged {
    /// Merges registries, the most trusted first.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`] if there is none.
    pub fn new(members: impl IntoIterator<Item = Registry>) -> Result<Self> {
        let members: Arc<[Registry]> = members.into_iter().collect();
        if members.is_empty() {
            return Err(Error::invalid("no registry was given to merge"));
        }
        Ok(Self { members })
    }
}

impl From<Merged> for Registry {
    fn from(merged: Merged) -> Self {
        let names: Vec<_> = merged.members.iter().map(Self::name).collect();
        Self::read_only(names.join(" + "), Arc::new(merged))
    }
}

impl Discovery for Merged {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let answers = join_all(self.members.iter().map(|member| member.discovery().list(service))).await;
            let mut error = None;
            let mut known = Vec::new();
            for (member, answer) in self.members.iter().zip(answers) {
                match answer {
                    Ok(snapshot) => known.push(snapshot),
                    Err(why) => error = error.or_else(|| Some(silent(member, why))),
                }
            }
            let union = union(&known);
            match error {
                Some(error) if union.instances().is_empty() => Err(error),
                _ => Ok(union),
            }
        })
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let mut views = SelectAll::new();
        for (n, member) in self.members.iter().enumerate() {
            let watch = member.discovery().watch(service).map(Some).chain(stream::iter([None]));
            views.push(Box::pin(watch.map(move |view| (n, view))));
        }
        let members = self.members.clone();
        Watch::driven(|sender| drive(members, views, sender))
    }
}

async fn drive(
    members: Arc<[Registry]>,
    mut views: impl futures_util::Stream<Item = (usize, Option<View>)> + Unpin,
    sender: WatchSender,
) {
    let mut known: BTreeMap<usize, View> = BTreeMap::new();
    while let Some((n, view)) = views.next().await {
        let view = view.unwrap_or_else(|| {
            let last = known.remove(&n).unwrap_or_default();
            let outage = Outage::new(Error::unavailable("its watch ended"), Instant::now());
            View::new(last.snapshot().cloned(), !last.is_not_found(), Some(outage))
        });
        known.insert(n, view);
        if let Some(view) = merge(&members, &known) {
            sender.send_view(view);
        }
    }
    // All have ended, which was told.
    sender.closed().await;
}

/// What is known of all; none if that is nothing yet.
fn merge(members: &[Registry], known: &BTreeMap<usize, View>) -> Option<View> {
    let snapshots: Vec<_> = known.values().filter_map(|view| view.snapshot().cloned()).collect();
    let union = union(&snapshots);
    let complete = snapshots.len() == members.len();
    let outage = known.iter().find_map(|(n, view)| Some((members.get(*n)?, view.outage()?)));
    let outage = outage.map(|(member, outage)| Outage::new(silent(member, outage.error().clone()), outage.since()));
    let found = known.values().any(|view| view.snapshot().is_some() && !view.is_not_found());
    let snapshot = (complete || !union.instances().is_empty()).then_some(union);
    (snapshot.is_some() || outage.is_some()).then(|| View::new(snapshot, found, outage))
}

/// Of the same id the first stays.
fn union(snapshots: &[Snapshot]) -> Snapshot {
    let skipped = snapshots.iter().map(Snapshot::skipped).sum();
    Snapshot::new(snapshots.iter().flat_map(Snapshot::instances).cloned()).with_skipped(skipped)
}

fn silent(member: &Registry, why: Error) -> Error {
    Error::with_source(Kind::Unavailable, format!("{} does not answer", member.name()), why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ServiceInstance,
        testing::{FakeRegistry, Fault},
    };

    fn instance(id: &str, version: &str) -> ServiceInstance {
        ServiceInstance::builder("s", id).and_then(|builder| builder.version(version).build()).expect("valid")
    }

    fn merged() -> (FakeRegistry, FakeRegistry, Merged) {
        let (old, new) = (FakeRegistry::new(), FakeRegistry::new());
        (old.clone(), new.clone(), Merged::new([old.into(), new.into()]).expect("two"))
    }

    fn shown(view: &View) -> Vec<String> {
        let instances = view.snapshot().into_iter().flat_map(Snapshot::instances);
        instances.map(|instance| format!("{}@{}", instance.id(), instance.version())).collect()
    }

    async fn until(watch: &mut Watch, mut holds: impl FnMut(&View) -> bool) -> View {
        loop {
            let view = watch.next().await.expect("open");
            if holds(&view) {
                return view;
            }
        }
    }

    #[tokio::test]
    async fn the_first_registry_wins_and_one_in_outage_keeps_its_set() {
        let (one, two, merged) = merged();
        one.set("s", [instance("a", "one"), instance("b", "one")]);
        two.set("s", [instance("a", "two"), instance("c", "two")]);
        let mut watch = merged.watch(&"s".parse().expect("a name"));
        until(&mut watch, |view| shown(view) == ["a@one", "b@one", "c@two"]).await;

        one.outage(Fault::Error);
        two.set("s", [instance("d", "two")]);
        let view = until(&mut watch, |view| shown(view) == ["a@one", "b@one", "d@two"]).await;
        assert!(view.outage().is_some());
        one.recover();
        until(&mut watch, |view| view.outage().is_none()).await;
    }

    #[tokio::test]
    async fn nothing_is_not_sure_before_all_have_answered() {
        let (one, two, merged) = merged();
        one.set("s", []);
        two.outage(Fault::Error);
        let service = "s".parse().expect("a name");
        let mut watch = merged.watch(&service);
        let view = until(&mut watch, |view| view.outage().is_some()).await;
        assert!(view.snapshot().is_none());
        assert!(merged.list(&service).await.is_err());
        two.recover();
        let view = until(&mut watch, |view| view.outage().is_none()).await;
        assert!(view.snapshot().is_some_and(|set| set.instances().is_empty()) && !view.is_not_found());
        assert!(merged.list(&service).await.is_ok());
    }

    #[tokio::test]
    async fn one_that_gives_up_is_an_outage() {
        let (one, two, merged) = merged();
        one.set("s", [instance("a", "one")]);
        let mut watch = merged.watch(&"s".parse().expect("a name"));
        until(&mut watch, |view| shown(view) == ["a@one"]).await;
        one.end_watches();
        let view = until(&mut watch, |view| view.outage().is_some()).await;
        assert_eq!(shown(&view), ["a@one"]);
        two.set("s", [instance("b", "two")]);
        until(&mut watch, |view| shown(view) == ["a@one", "b@two"]).await;
    }
}

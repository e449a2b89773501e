//! The loop behind one watch: list, then watch from there, for ever.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Kubernetes,
    client::{Client, Failure, Resource, WatchEvent},
    codec::{Meta, Pod},
    slices::{self, Slice},
    subject::Subject,
};
use crate::{
    error::{Error, Result},
    instance::ServiceName,
    registry::{Snapshot, Update, WatchSender, skips::Skips},
    util::{
        backoff::{Backoff, BackoffConfig},
        rng::Rng,
    },
};

/// Many changes at once are one set.
const BETWEEN: Duration = Duration::from_millis(20);

/// Lists again so often, whatever the watch says.
const RELIST: Duration = Duration::from_secs(45 * 60);

/// No service has more objects.
pub(super) const MAX_OBJECTS: usize = 20_000;

/// A watch that ends sooner did not go well.
const SHORT: Duration = Duration::from_secs(5);

/// An object as far as it matters.
pub(super) enum Item {
    Slice(Slice),
    Pod(Pod),
    Bad(Error),
}

/// What is known of one service.
pub(super) struct Known {
    subject: Subject,
    items: BTreeMap<String, Item>,
}

impl Known {
    pub(super) fn new(subject: Subject) -> Self {
        Self { subject, items: BTreeMap::new() }
    }

    pub(super) fn replace(&mut self, objects: Vec<Value>) {
        // Whole, so that nothing is missing in between.
        self.items = objects.into_iter().map(|object| self.read(object)).collect();
    }

    fn read(&self, object: Value) -> (String, Item) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let item = match self.subject.resource() {
            Resource::EndpointSlices => Slice::read(object).map(Item::Slice),
            Resource::Pods => Pod::read(object).map(Item::Pod),
        };
        (name, item.unwrap_or_else(Item::Bad))
    }

    pub(super) fn snapshot(&self) -> (Snapshot, BTreeMap<String, Error>) {
        let mut skipped = BTreeMap::new();
        let mut instances = Vec::new();
        for (name, item) in &self.items {
            match item {
                Item::Bad(error) => drop(skipped.insert(name.clone(), error.clone())),
                Item::Pod(pod) if pod.is_serving() => match pod.instance() {
                    Ok(instance) => instances.push(instance),
                    Err(error) => drop(skipped.insert(name.clone(), error)),
                },
                _ => {}
            }
        }
        if let Subject::Slices { service, query, choice } = &self.subject {
            let all =
                self.items.values().filter_map(|item| if let Item::Slice(slice) = item { Some(slice) } else { None });
            let (merged, more) = slices::merge(service, all, query, choice);
            instances = merged;
            skipped.extend(more);
        }
        (Snapshot::new(instances).with_skipped(skipped.len()), skipped)
    }
}

pub(super) struct Follower {
    kubernetes: Kubernetes,
    service: ServiceName,
    known: Known,
    /// What the watch goes on from; none where a list must come first.
    version: Option<String>,
    listed: Instant,
    skips: Skips,
    rng: Rng,
}

impl Follower {
    pub(super) fn new(kubernetes: Kubernetes, service: ServiceName, subject: Subject) -> Self {
        let skips = Skips::new(kubernetes.name().into(), kubernetes.observer.clone());
        let (known, listed) = (Known::new(subject), Instant::now());
        Self { kubernetes, service, known, version: None, listed, skips, rng: Rng::from_entropy() }
    }

    pub(super) async fn drive(mut self, sender: WatchSender) {
        let mut backoff = Backoff::new(BackoffConfig::spread(Duration::from_secs(15)));
        loop {
            let begun = Instant::now();
            let step = self.step(&sender).await;
            let lasted = begun.elapsed() >= SHORT;
            if lasted {
                backoff.reset();
            }
            let wait = match step {
                Ok(()) if lasted => continue,
                Ok(()) => Duration::ZERO,
                Err(failure) if failure.is_gone() => {
                    self.version = None;
                    Duration::ZERO
                }
                Err(failure) => {
                    if failure.code == 401 {
                        self.kubernetes.forget_client().await;
                    }
                    // Who was only asked to wait goes on where it was; else the server may be another.
                    if failure.code != 429 {
                        self.version = None;
                    }
                    sender.send(Update::Unavailable(failure.error));
                    failure.retry_after.unwrap_or_default().min(Duration::from_secs(60))
                }
            };
            sleep(backoff.next(&mut self.rng).max(wait)).await;
        }
    }

    /// A list if need be, and one watch until its end.
    async fn step(&mut self, sender: &WatchSender) -> Result<(), Failure> {
        let client = self.kubernetes.client(self.known.subject.namespace()).await.map_err(Failure::unanswered)?;
        let (resource, labels) = (self.known.subject.resource(), self.known.subject.labels());
        let version = match &self.version {
            Some(version) if self.listed.elapsed() < RELIST => version.clone(),
            _ => {
                let (objects, version) = client.list(resource, &labels, MAX_OBJECTS).await?;
                self.known.replace(objects);
                self.listed = Instant::now();
                self.version = Some(version.clone());
                self.tell(sender);
                version
            }
        };
        self.watch(&client, &labels, &version, sender).await
    }

    async fn watch(
        &mut self,
        client: &Client,
        labels: &str,
        version: &str,
        sender: &WatchSender,
    ) -> Result<(), Failure> {
        // Spread, so that a fleet does not come back at once.
        let seconds = 240 + (self.rng.unit() * 50.0) as u32;
        let mut lines = client.watch(self.known.subject.resource(), labels, version, seconds).await?;
        let ends = Instant::now() + Duration::from_secs(u64::from(seconds) + 10);
        let idle = self.kubernetes.idle;
        let (mut heard, mut due) = (Instant::now(), None);
        // It answers, so an outage is over.
        self.tell(sender);
        let ended = loop {
            tokio::select! {
                event = lines.next() => match event {
                    Ok(Some(event)) => {
                        heard = Instant::now();
                        if self.take(event)? {
                            due = due.or(Some(heard + BETWEEN));
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(failure) => break Err(failure),
                },
                () = sleep_until(due.unwrap_or(ends)), if due.is_some() => {
                    due = None;
                    self.tell(sender);
                }
                // Half open, perhaps: asked again from where it is, over a new connection.
                () = sleep_until(heard + idle) => break Ok(()),
                () = sleep_until(ends) => break Ok(()),
            }
        };
        if due.is_some() {
            self.tell(sender);
        }
        ended
    }

    /// Takes in an event; tells whether it is more than a bookmark.
    fn take(&mut self, event: WatchEvent) -> Result<bool, Failure> {
        let meta: Meta = serde_json::from_value(event.object["metadata"].clone()).unwrap_or_default();
        let number = |version: &str| version.parse::<u64>().ok();
        let ours = self.version.as_deref().and_then(number);
        if event.kind == "BOOKMARK" && number(&meta.resource_version).zip(ours).is_some_and(|(new, ours)| new < ours) {
            // The versions went back: it lost its data.
            let error = Error::unavailable("the API server's versions went back");
            return Err(Failure { error, code: 410, retry_after: None });
        }
        if !meta.resource_version.is_empty() {
            self.version = Some(meta.resource_version);
        }
        match event.kind.as_str() {
            "ADDED" | "MODIFIED" => {
                let (name, item) = self.known.read(event.object);
                if self.known.items.len() < MAX_OBJECTS || self.known.items.contains_key(&name) {
                    self.known.items.insert(name, item);
                }
            }
            "DELETED" => drop(self.known.items.remove(&meta.name)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn tell(&mut self, sender: &WatchSender) {
        let (snapshot, skipped) = self.known.snapshot();
        self.skips.tell(&self.service, &skipped);
        sender.send(Update::Instances(snapshot));
    }
}

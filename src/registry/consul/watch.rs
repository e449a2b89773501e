//! The loop behind one watch: a blocking query after the other
//! ([Consul's rules](https://developer.hashicorp.com/consul/api-docs/features/blocking)).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{Answer, Client, Failed};
use crate::{
    error::Error,
    instance::{ServiceInstance, ServiceName},
    registry::{Snapshot, Update, WatchSender, skips::Skips},
    util::{
        backoff::{Backoff, BackoffConfig},
        rng::Rng,
    },
};

/// Answers come no oftener than this, two in a row apart, however often something changes.
const BETWEEN: Duration = Duration::from_millis(200);

pub(super) struct Follower {
    client: Arc<Client>,
    service: ServiceName,
    known: Mutex<Known>,
}

/// What each datacenter said last.
#[derive(Debug)]
struct Known {
    by_datacenter: BTreeMap<String, Part>,
    skips: Skips,
}

#[derive(Debug, Default)]
struct Part {
    instances: Option<Vec<Arc<ServiceInstance>>>,
    skipped: BTreeMap<String, Error>,
    index: u64,
    /// Why it does not answer.
    outage: Option<Error>,
}

impl Follower {
    pub(super) fn new(client: Arc<Client>, service: ServiceName) -> Self {
        let skips = Skips::new(client.config().name.clone(), client.config().observer.clone());
        let known = Mutex::new(Known { by_datacenter: BTreeMap::new(), skips });
        Self { client, service, known }
    }

    /// Goes on for ever: the watch's end ends the task. Each datacenter has an index of its own, and
    /// holds up no other.
    pub(super) async fn drive(self, sender: WatchSender) {
        let datacenters = self.client.config().datacenters.clone();
        if datacenters.is_empty() {
            return self.follow(None, &sender).await;
        }
        join_all(datacenters.iter().map(|datacenter| self.follow(Some(datacenter), &sender))).await;
    }

    async fn follow(&self, datacenter: Option<&str>, sender: &WatchSender) {
        let mut backoff = Backoff::new(BackoffConfig::spread(Duration::from_secs(10)));
        let (mut rng, mut pace) = (Rng::from_entropy(), Pace::default());
        // The backend of the last question that waited: one that does not may be answered by another.
        let (mut index, mut backend) = (0, None);
        let mut failures = 0;
        loop {
            pace.wait().await;
            let agent = self.client.current();
            match self.client.health(agent, &self.service, datacenter, index).await {
                Ok(answer) => {
                    let there = answer.index.max(1);
                    // One that counts otherwise, or from anew, is asked from the beginning.
                    let before = if index > 0 { backend.replace(answer.backend.clone()) } else { None };
                    let anew = before.is_some_and(|before| before != answer.backend) || there < index;
                    if anew {
                        // Nor is it taken at its word: an agent whose view of the service has just been closed, as
                        // when the token expired, has nobody in it.
                        index = 0;
                        continue;
                    }
                    let same = there == index;
                    index = there;
                    if !same || failures > 0 {
                        if let Err(error) = self.take(datacenter, answer).await {
                            failures += 1;
                            index = 0;
                            self.fail(datacenter, error, sender);
                            sleep(backoff.next(&mut rng)).await;
                            continue;
                        }
                        self.tell(sender);
                    }
                    failures = 0;
                    backoff.reset();
                }
                Err(Failed { error, after, elsewhere, .. }) => {
                    failures += 1;
                    if elsewhere {
                        self.client.go_on_from(agent);
                    }
                    // One agent that ends is no outage if another goes on.
                    if failures >= self.client.config().agents.len() || !elsewhere {
                        self.fail(datacenter, error, sender);
                        // An agent that lost its data would hold back a question for an index that it has not
                        // reached yet, for the whole wait.
                        index = 0;
                        // Those who are all asked for patience do not all come back at once either.
                        sleep(backoff.next(&mut rng) + after.unwrap_or_default().min(MOST_AFTER)).await;
                    }
                }
            }
        }
    }

    async fn take(&self, datacenter: Option<&str>, answer: Answer) -> Result<(), Error> {
        let (instances, skipped) = self.client.read(&self.service, answer.body).await?;
        let part = Part { instances: Some(instances), skipped, index: answer.index, outage: None };
        self.lock().by_datacenter.insert(datacenter.unwrap_or_default().to_owned(), part);
        Ok(())
    }

    fn fail(&self, datacenter: Option<&str>, error: Error, sender: &WatchSender) {
        let mut known = self.lock();
        known.by_datacenter.entry(datacenter.unwrap_or_default().to_owned()).or_default().outage = Some(error.clone());
        let all = self.client.config().datacenters.len().max(1);
        let away = known.by_datacenter.values().filter(|part| part.outage.is_some()).count();
        drop(known);
        // A datacenter that is away keeps what it had, and no other from being heard.
        if away == all {
            sender.send(Update::Unavailable(error));
        }
    }

    /// What all datacenters have together.
    fn tell(&self, sender: &WatchSender) {
        let mut known = self.lock();
        let Known { by_datacenter, skips } = &mut *known;
        let skipped: BTreeMap<_, _> = by_datacenter.values().flat_map(|part| part.skipped.clone()).collect();
        skips.tell(&self.service, &skipped);
        let instances = by_datacenter.values().flat_map(|part| part.instances.iter().flatten().cloned());
        let revision = by_datacenter.values().map(|part| part.index).max().unwrap_or_default();
        let snapshot = Snapshot::new(instances).with_revision(revision).with_skipped(skipped.len());
        drop(known);
        let before = sender.view();
        // An index moves for other services' changes too.
        let same = before.outage().is_none()
            && before.snapshot().is_some_and(|before| {
                before.instances() == snapshot.instances() && before.skipped() == snapshot.skipped()
            });
        if !same {
            sender.send(Update::Instances(snapshot));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No server may ask for more patience.
const MOST_AFTER: Duration = Duration::from_secs(60);

/// A token bucket of two.
#[derive(Debug, Default)]
struct Pace {
    before: Option<Instant>,
    last: Option<Instant>,
}

impl Pace {
    async fn wait(&mut self) {
        if let Some(before) = self.before {
            sleep_until(before + BETWEEN).await;
        }
        self.before = self.last.replace(Instant::now());
    }
}

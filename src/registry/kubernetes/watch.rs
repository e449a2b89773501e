//! The loop behind one watch: list, then watch from there, for ever.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Kubernetes,
    client::{Client, Failure, WatchEvent},
    codec::Meta,
    known::Known,
    subject::Subject,
};
use crate::{
    error::{Error, Result},
    instance::ServiceName,
    registry::{Update, WatchSender, skips::Skips},
    util::{
        backoff::{Backoff, BackoffConfig},
        rng::Rng,
    },
};

/// Many changes at once are one set.
const BETWEEN: Duration = Duration::from_millis(20);

/// Lists again so often, whatever the watch says.
const RELIST: Duration = Duration::from_secs(45 * 60);

/// A watch that ends sooner did not go well.
const SHORT: Duration = Duration::from_secs(5);

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
        let (known, listed) = (Known::new(subject, kubernetes.most), Instant::now());
        Self { kubernetes, service, known, version: None, listed, skips, rng: Rng::from_entropy() }
    }

    pub(super) async fn drive(mut self, sender: WatchSender) {
        let mut backoff = Backoff::new(BackoffConfig::spread(Duration::from_secs(15)));
        loop {
            let begun = Instant::now();
            let step = self.step(&sender).await;
            let lasted = begun.elapsed() >= SHORT.min(self.kubernetes.idle);
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
        let client = self.kubernetes.client(self.known.subject().namespace()).await.map_err(Failure::unanswered)?;
        let version = match &self.version {
            Some(version) if self.listed.elapsed() < RELIST => version.clone(),
            _ => {
                let version = self.list(&client).await?;
                self.tell(sender);
                version
            }
        };
        self.watch(&client, &version, sender).await
    }

    /// Takes in all that is there; tells its version.
    async fn list(&mut self, client: &Client) -> Result<String, Failure> {
        let subject = self.known.subject();
        let (objects, version) = client.list(subject.resource(), &subject.labels(), self.kubernetes.most).await?;
        self.known.replace(objects);
        self.listed = Instant::now();
        self.version = Some(version.clone());
        Ok(version)
    }

    /// A list beside a watch that is silent, which may be half open, or at a server that lost its data and waits for
    /// our version; tells whether the watch missed something.
    async fn look(&mut self, client: &Client) -> Result<bool, Failure> {
        let number = |version: &str| version.parse::<u64>().unwrap_or(0);
        let (before, (known, _)) = (self.version.as_deref().map_or(0, number), self.known.snapshot());
        let version = self.list(client).await?;
        Ok(number(&version) < before || self.known.snapshot().0 != known)
    }

    async fn watch(&mut self, client: &Client, version: &str, sender: &WatchSender) -> Result<(), Failure> {
        // Spread, so that a fleet does not come back at once.
        let seconds = 240 + (self.rng.unit() * 50.0) as u32;
        let subject = self.known.subject();
        let mut lines = client.watch(subject.resource(), &subject.labels(), version, seconds).await?;
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
                () = sleep_until(heard + idle) => {
                    if self.look(client).await? {
                        due = Some(heard);
                        break Ok(());
                    }
                    heard = Instant::now();
                }
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
            "ADDED" | "MODIFIED" => self.known.put(event.object),
            "DELETED" => self.known.remove(&meta.name),
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

//! The loop behind one watch.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    client::{Events, Moment},
    cluster::{Cluster, Failure, PING_AFTER, PING_WITHIN},
    proto::{
        etcdserverpb::WatchResponse,
        mvccpb::{Event, KeyValue, event::EventType},
    },
    records::Records,
};
use crate::{
    error::{Error, Kind},
    instance::ServiceName,
    registry::{Update, WatchSender, skips::Skips},
    util::{
        backoff::{Backoff, BackoffConfig},
        rng::Rng,
    },
};

/// A member that has said nothing for so long is asked how far it is.
const QUIET: Duration = Duration::from_secs(10);

/// The first time earlier: a member that has just taken a watch on may be one that no other talks to.
const QUIET_AT_FIRST: Duration = Duration::from_secs(1);

/// How long an answer to that may take; it is asked for twice.
const ANSWER: Duration = Duration::from_millis(2500);

const _: () = {
    let broken = PING_AFTER.as_millis() + PING_WITHIN.as_millis();
    assert!(
        broken + 500 < QUIET.as_millis() + 2 * ANSWER.as_millis(),
        "who gives up a watch must find its connection gone"
    );
};

/// Many events at once are one update.
const BATCH: Duration = Duration::from_millis(20);

/// A service of which only a part is held is not listed oftener than that, however much of it goes.
const BEFORE_RELIST: Duration = Duration::from_secs(1);

pub(super) struct Follower {
    cluster: Arc<Cluster>,
    service: ServiceName,
    records: Records,
    /// What the records are true for.
    at: Moment,
    /// Whether they are: else the keys are to be listed first.
    listed: bool,
    skips: Skips,
    /// How often in a row the watch broke.
    breaks: u32,
    backoff: Backoff,
    rng: Rng,
}

/// Why a watch at one member is over.
enum End {
    /// Another may go on where this one was.
    Broken(Failure),
    /// What happened since is not known any more.
    Lost,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Broken(failure)
    }
}

impl Follower {
    pub(super) fn new(cluster: Arc<Cluster>, service: ServiceName, records: Records) -> Self {
        let skips = Skips::new(cluster.config().name.clone(), cluster.config().observer.clone());
        Self {
            cluster,
            service,
            records,
            at: Moment::default(),
            listed: false,
            skips,
            breaks: 0,
            backoff: Backoff::new(BackoffConfig::spread(Duration::from_secs(10))),
            rng: Rng::from_entropy(),
        }
    }

    /// Goes on for ever: the watch's end ends the task.
    pub(super) async fn drive(mut self, sender: WatchSender) {
        loop {
            let end = self.follow(&sender).await;
            self.breaks += 1;
            match end {
                End::Lost => self.listed = false,
                End::Broken(failure) => {
                    let error = self.cluster.error(failure);
                    // One member that ends is no outage if the next one goes on.
                    let elsewhere = self.breaks == 1 && self.listed && error.kind() != Kind::PermissionDenied;
                    if !elsewhere {
                        // Nobody was there: what comes back may be another.
                        self.listed = false;
                        sender.send(Update::Unavailable(error));
                    }
                }
            }
            if self.breaks > 1 {
                sleep(self.backoff.next(&mut self.rng)).await;
            }
        }
    }

    /// Follows one member for as long as it goes.
    async fn follow(&mut self, sender: &WatchSender) -> End {
        let mut events = match self.begin(sender).await {
            Ok(events) => events,
            Err(end) => return end,
        };
        let mut dirty = None;
        let end = self.take_events(&mut events, &mut dirty, sender).await;
        if dirty.is_some() {
            self.tell(sender);
        }
        end
    }

    async fn begin(&mut self, sender: &WatchSender) -> Result<Events, End> {
        if !self.listed {
            let mut records = self.records.afresh();
            self.at = match self.cluster.list(&mut records).await {
                Err(failure) if failure.says("has been compacted") => return Err(End::Lost),
                listed => listed?,
            };
            (self.records, self.listed) = (records, true);
            self.tell(sender);
        }
        let events = self.cluster.watch(self.records.prefix(), self.at.revision).await?;
        let began = events.began();
        // A cluster that is not as far as we were is behind, or has lost its data and counts anew.
        if began.revision < self.at.revision || began.term < self.at.term {
            return Err(End::Lost);
        }
        self.at.term = began.term;
        Ok(events)
    }

    async fn take_events(&mut self, events: &mut Events, dirty: &mut Option<Instant>, sender: &WatchSender) -> End {
        let mut last = self.at.revision;
        let (mut next, mut asked) = (Instant::now() + QUIET_AT_FIRST, 0);
        loop {
            tokio::select! {
                answer = events.next(&self.cluster) => {
                    let answer = match answer {
                        Ok(answer) if answer.compact_revision != 0 => return End::Lost,
                        Ok(answer) => answer,
                        Err(failure) => return End::Broken(failure),
                    };
                    (self.breaks, asked, next) = (0, 0, Instant::now() + QUIET);
                    self.backoff.reset();
                    if self.take(answer, &mut last) && dirty.is_none() {
                        *dirty = Some(Instant::now() + BATCH);
                    }
                    if self.records.lacks_some() {
                        self.tell(sender);
                        sleep(BEFORE_RELIST).await;
                        return End::Lost;
                    }
                }
                () = sleep_until(dirty.unwrap_or(next)), if dirty.is_some() => {
                    *dirty = None;
                    self.tell(sender);
                }
                () = sleep_until(next) => {
                    if asked == 2 {
                        let name = &self.cluster.config().name;
                        let context = format!("{name}: a member does not say how far it is");
                        return End::Broken(Error::unavailable(context).into());
                    }
                    asked += 1;
                    events.ask_progress();
                    next = Instant::now() + ANSWER;
                }
            }
        }
    }

    /// Takes in one answer; tells whether that changes anything. `last` is the revision of the last event.
    fn take(&mut self, answer: WatchResponse, last: &mut i64) -> bool {
        let mut changed = false;
        for Event { r#type, kv } in answer.events {
            let Some(KeyValue { key, value, mod_revision, .. }) = kv else { continue };
            // The revision the watch began with is told again.
            if mod_revision <= self.at.revision {
                continue;
            }
            changed |= match EventType::try_from(r#type) {
                Ok(EventType::Delete) => self.records.delete(&key),
                _ => self.records.put(&key, &value),
            };
            *last = mod_revision.max(*last);
        }
        // What comes in fragments is one revision's until the last of them. An answer about progress moves nothing: in
        // etcd before 3.4.25 and 3.5.8 it may go before events that it says are past.
        if !answer.fragment {
            self.at.revision = *last;
        }
        changed
    }

    fn tell(&mut self, sender: &WatchSender) {
        self.skips.tell(&self.service, &self.records.skipped());
        sender.send(Update::Instances(self.records.snapshot(self.at.revision)));
    }
}

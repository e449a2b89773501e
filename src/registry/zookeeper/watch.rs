//! The loop behind one watch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout, timeout_at};
use zookeeper_client::{AddWatchMode, Error as Failure, EventType, PersistentWatcher, SessionState, WatchedEvent};

use super::{
    Inner,
    client::Session,
    records::{Place, Records},
};
use crate::{
    error::{Error, Result},
    registry::{Update, WatchSender, skips::Skips},
    util::{
        backoff::{Backoff, BackoffConfig},
        rng::Rng,
    },
};

/// Many events at once are one update.
pub(super) const BATCH: Duration = Duration::from_millis(20);

/// How long a server takes to end a connection after what it does not know.
const HANGS_UP_WITHIN: Duration = Duration::from_secs(1);

/// How long the request for a watch may take.
pub(super) const WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Follower {
    pub(super) inner: Arc<Inner>,
    pub(super) place: Place,
    skips: Skips,
    backoff: Backoff,
    rng: Rng,
}

/// What is not true any more.
#[derive(Debug, Default)]
struct Dirty {
    all: bool,
    /// Whether there is a new connection.
    connection: bool,
    names: BTreeSet<String>,
}

impl Follower {
    pub(super) fn new(inner: Arc<Inner>, place: Place) -> Self {
        let skips = Skips::new(inner.config.name.clone(), inner.config.observer.clone());
        Self {
            inner,
            place,
            skips,
            backoff: Backoff::new(BackoffConfig::spread(Duration::from_secs(10))),
            rng: Rng::from_entropy(),
        }
    }

    /// Goes on for ever: the watch's end ends the task.
    pub(super) async fn drive(mut self, sender: WatchSender) {
        loop {
            if let Err(error) = self.follow(&sender).await {
                sender.send(Update::Unavailable(error));
            }
            sleep(self.backoff.next(&mut self.rng)).await;
        }
    }

    /// Follows by one session, for as long as it lives.
    async fn follow(&mut self, sender: &WatchSender) -> Result<()> {
        let session = self.inner.session().await?;
        if session.is_old() {
            return self.follow_once(&session, sender).await;
        }
        let mut states = session.client().state_watcher();
        match self.begin(&session).await {
            Ok(watcher) => self.follow_all(&session, watcher, sender).await,
            // A server before 3.6, which ends the connection with that answer.
            Err(Failure::Unimplemented) => {
                session.set_old();
                let _ = timeout(HANGS_UP_WITHIN, states.changed()).await;
                self.follow_once(&session, sender).await
            }
            Err(failure) => Err(self.inner.config.error(failure)),
        }
    }

    async fn begin(&self, session: &Session) -> Result<PersistentWatcher, Failure> {
        let asked = timeout(WITHIN, session.client().watch(&self.place.path, AddWatchMode::PersistentRecursive));
        asked.await.unwrap_or(Err(Failure::Timeout))
    }

    async fn list(&mut self, session: &Session, sender: &WatchSender) -> Result<Records> {
        let records = Records::list(session, &self.place).await?;
        match &records {
            Some(records) => self.tell(records, sender),
            None => self.tell_none(sender),
        }
        Ok(records.unwrap_or_default())
    }

    pub(super) fn tell(&mut self, records: &Records, sender: &WatchSender) {
        self.backoff.reset();
        self.skips.tell(&self.place.service, &records.skipped(&self.place));
        sender.send(Update::Instances(records.snapshot()));
    }

    pub(super) fn tell_none(&mut self, sender: &WatchSender) {
        self.backoff.reset();
        self.skips.tell(&self.place.service, &BTreeMap::new());
        sender.send(Update::NotFound);
    }

    pub(super) fn tell_lost(&self, sender: &WatchSender) {
        let context = format!("{}: the connection is lost", self.inner.config.name);
        sender.send(Update::Unavailable(Error::unavailable(context)));
    }

    async fn follow_all(
        &mut self,
        session: &Session,
        mut watcher: PersistentWatcher,
        sender: &WatchSender,
    ) -> Result<()> {
        let mut records = self.list(session, sender).await?;
        loop {
            let mut dirty = Dirty::default();
            let mut event = watcher.changed().await;
            // From the first event on: where they never end, they are taken in all the same.
            let until = Instant::now() + BATCH;
            loop {
                self.note(&event, &mut dirty, sender)?;
                // No read is of use while there is nobody to read from.
                let next = if event.session_state == SessionState::Disconnected {
                    Ok(watcher.changed().await)
                } else if Instant::now() < until {
                    timeout_at(until, watcher.changed()).await
                } else {
                    break;
                };
                match next {
                    Ok(next) => event = next,
                    Err(_) => break,
                }
            }
            if dirty.connection && session.is_old() {
                // Another watch was told so, at this member. No watches of both kinds on one path (ZOOKEEPER-4466).
                return Ok(());
            }
            if dirty.connection {
                // zookeeper-client 0.11.2 does not ask the next member for such watches again. The old one is dropped
                // last: that of the last watch of a path takes it off at the member.
                let anew = self.begin(session).await;
                watcher = anew.map_err(|failure| self.inner.config.error(failure))?;
            }
            let lacking = records.lacks_some() && !dirty.names.is_empty();
            if dirty.all || lacking {
                records = self.list(session, sender).await?;
            } else if !dirty.names.is_empty() {
                let names = dirty.names.into_iter().collect();
                records.reread(session, &self.place, names).await?;
                self.tell(&records, sender);
            }
        }
    }

    /// Takes in what an event says to be out of date.
    fn note(&self, event: &WatchedEvent, dirty: &mut Dirty, sender: &WatchSender) -> Result<()> {
        if event.event_type == EventType::Session {
            let name = &self.inner.config.name;
            match event.session_state {
                SessionState::Disconnected => {
                    self.tell_lost(sender);
                }
                // What happened meanwhile was told to nobody (ZOOKEEPER-4698).
                SessionState::SyncConnected | SessionState::ConnectedReadOnly => {
                    (dirty.all, dirty.connection) = (true, true);
                }
                SessionState::AuthFailed => return Err(self.inner.config.error(Failure::AuthFailed)),
                // No event may be asked for after these.
                SessionState::Expired | SessionState::Closed => {
                    return Err(Error::unavailable(format!("{name}: the session is over")));
                }
            }
        } else {
            match event.path.strip_prefix(&self.place.path) {
                Some("") => dirty.all = true,
                Some(rest) => match rest.strip_prefix('/') {
                    Some(name) if !name.contains('/') => drop(dirty.names.insert(name.to_owned())),
                    _ => {}
                },
                None => {}
            }
        }
        Ok(())
    }
}

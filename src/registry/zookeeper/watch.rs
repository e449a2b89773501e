//! The loop behind one watch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::{Either, select, select_all};
use tokio::time::{sleep, timeout};
use zookeeper_client::{AddWatchMode, Error as Failure, EventType, PersistentWatcher, SessionState, WatchedEvent};

use super::{Inner, client::Session, codec};
use crate::{
    error::{Error, Kind, Result},
    instance::{ServiceInstance, ServiceName},
    registry::{Snapshot, Update, WatchSender, skips::Skips},
    util::{
        backoff::{Backoff, BackoffConfig},
        rng::Rng,
    },
};

/// So many records of one service are held.
pub(super) const MOST: usize = 20_000;

/// Many events at once are one update.
const BATCH: Duration = Duration::from_millis(20);

/// How long the request for a watch may take.
const WITHIN: Duration = Duration::from_secs(5);

/// The children of a service's node, each an instance or why it is none.
#[derive(Debug, Default)]
pub(super) struct Records {
    by_name: BTreeMap<String, Result<Arc<ServiceInstance>>>,
    /// How many there are beside those held.
    beyond: usize,
}

impl Records {
    /// All children; none at all if there is no such node.
    pub(super) async fn list(session: &Session, path: &str, service: &ServiceName) -> Result<Option<Self>> {
        let Some(mut names) = session.children(path).await? else { return Ok(None) };
        names.sort_unstable();
        let beyond = names.len().saturating_sub(MOST);
        names.truncate(MOST);
        let mut records = Self { beyond, ..Self::default() };
        records.reread(session, path, service, names).await?;
        Ok(Some(records))
    }

    async fn reread(&mut self, session: &Session, path: &str, service: &ServiceName, names: Vec<String>) -> Result<()> {
        for (name, data) in session.read(path, names).await? {
            match data {
                None => drop(self.by_name.remove(&name)),
                Some(_) if self.by_name.len() >= MOST && !self.by_name.contains_key(&name) => self.beyond += 1,
                Some(data) => drop(self.by_name.insert(name, codec::decode(service, &data))),
            }
        }
        Ok(())
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let skipped = self.by_name.values().filter(|read| read.is_err()).count() + self.beyond;
        Snapshot::new(self.by_name.values().filter_map(|read| read.as_ref().ok()).cloned()).with_skipped(skipped)
    }

    /// What is no instance, by its path; the sum of what was too much under one name.
    fn skipped(&self, path: &str) -> BTreeMap<String, Error> {
        let wrong = |(name, read): (&String, &Result<_>)| {
            read.as_ref().err().map(|error| (format!("{path}/{name}"), error.clone()))
        };
        let mut skipped: BTreeMap<_, _> = self.by_name.iter().filter_map(wrong).collect();
        if self.beyond > 0 {
            let context = format!("more than {MOST} records: some are not read");
            skipped.insert(format!("{path}/*"), Error::new(Kind::Exhausted, context));
        }
        skipped
    }
}

pub(super) struct Follower {
    inner: Arc<Inner>,
    service: ServiceName,
    path: String,
    skips: Skips,
    /// Whether a member did not know watches that stay.
    is_old: bool,
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
    pub(super) fn new(inner: Arc<Inner>, service: ServiceName, path: String) -> Self {
        let skips = Skips::new(inner.config.name.clone(), inner.config.observer.clone());
        Self {
            inner,
            service,
            path,
            skips,
            is_old: false,
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
        if self.is_old {
            return self.follow_each(&session, sender).await;
        }
        match self.begin(&session).await {
            Ok(watcher) => self.follow_all(&session, watcher, sender).await,
            // A server before 3.6, which ends the connection with that answer.
            Err(Failure::Unimplemented) => {
                self.is_old = true;
                self.follow_each(&session, sender).await
            }
            Err(failure) => Err(self.inner.config.error(failure)),
        }
    }

    async fn begin(&self, session: &Session) -> Result<PersistentWatcher, Failure> {
        let asked = timeout(WITHIN, session.client().watch(&self.path, AddWatchMode::PersistentRecursive));
        asked.await.unwrap_or(Err(Failure::Timeout))
    }

    async fn list(&mut self, session: &Session, sender: &WatchSender) -> Result<Records> {
        let records = Records::list(session, &self.path, &self.service).await?;
        self.backoff.reset();
        let found = records.is_some();
        let records = records.unwrap_or_default();
        if found {
            self.tell(&records, sender);
        } else {
            self.skips.tell(&self.service, &BTreeMap::new());
            sender.send(Update::NotFound);
        }
        Ok(records)
    }

    fn tell(&mut self, records: &Records, sender: &WatchSender) {
        self.skips.tell(&self.service, &records.skipped(&self.path));
        sender.send(Update::Instances(records.snapshot()));
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
            loop {
                self.note(&event, &mut dirty, sender)?;
                // No read is of use while there is nobody to read from.
                let wait = if event.session_state == SessionState::Disconnected { Duration::MAX } else { BATCH };
                match timeout(wait, watcher.changed()).await {
                    Ok(next) => event = next,
                    Err(_) => break,
                }
            }
            if dirty.connection {
                // zookeeper-client 0.11.2 does not ask the next member for such watches again. The old one is dropped
                // last: that of the last watch of a path takes it off at the member.
                let anew = self.begin(session).await;
                watcher = anew.map_err(|failure| self.inner.config.error(failure))?;
            }
            let lacking = records.beyond > 0 && !dirty.names.is_empty();
            if dirty.all || lacking {
                records = self.list(session, sender).await?;
            } else if !dirty.names.is_empty() {
                let names = dirty.names.into_iter().collect();
                records.reread(session, &self.path, &self.service, names).await?;
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
                    let context = format!("{name}: the connection is lost");
                    sender.send(Update::Unavailable(Error::unavailable(context)));
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
            match event.path.strip_prefix(&self.path) {
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

    /// The same by watches that fire once: of the children, and of each one's data.
    async fn follow_each(&mut self, session: &Session, sender: &WatchSender) -> Result<()> {
        let (client, path, config) = (session.client(), self.path.clone(), self.inner.config.clone());
        let told = |failure| config.error(failure);
        loop {
            let children = match client.list_and_watch_children(&path).await {
                Ok((mut names, watcher)) => {
                    names.sort_unstable();
                    names.truncate(MOST);
                    Some((names, watcher))
                }
                Err(Failure::NoNode) => None,
                Err(failure) => return Err(told(failure)),
            };
            let Some((names, watcher)) = children else {
                let (stat, watcher) = client.check_and_watch_stat(&path).await.map_err(told)?;
                if stat.is_none() {
                    self.skips.tell(&self.service, &BTreeMap::new());
                    sender.send(Update::NotFound);
                    ended(&watcher.changed().await, &self.inner.config.name)?;
                }
                continue;
            };
            let mut watchers = vec![Box::pin(watcher.changed())];
            let mut records = Records::default();
            for name in names {
                match client.get_and_watch_data(&format!("{path}/{name}")).await {
                    Ok((data, _, watcher)) => {
                        records.by_name.insert(name, codec::decode(&self.service, &data));
                        watchers.push(Box::pin(watcher.changed()));
                    }
                    Err(Failure::NoNode) => {}
                    Err(failure) => return Err(told(failure)),
                }
            }
            self.backoff.reset();
            self.tell(&records, sender);
            let mut states = client.state_watcher();
            let mut fired = select_all(watchers);
            loop {
                match select(fired, std::pin::pin!(states.changed())).await {
                    Either::Left(((event, _, _), _)) => {
                        ended(&event, &self.inner.config.name)?;
                        break;
                    }
                    Either::Right((state, rest)) => {
                        fired = rest;
                        if state == SessionState::Disconnected {
                            let context = format!("{}: the connection is lost", self.inner.config.name);
                            sender.send(Update::Unavailable(Error::unavailable(context)));
                        } else {
                            break;
                        }
                    }
                }
            }
            sleep(BATCH).await;
        }
    }
}

fn ended(event: &WatchedEvent, name: &str) -> Result<()> {
    if event.event_type == EventType::Session && event.session_state.is_terminated() {
        return Err(Error::unavailable(format!("{name}: the session is over")));
    }
    Ok(())
}

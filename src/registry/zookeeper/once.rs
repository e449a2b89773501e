//! The same watch at servers before 3.6, by watches that fire once: of the children, and of each one's data.

use std::collections::{BTreeSet, HashSet};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::time::{sleep, timeout};
use zookeeper_client::{Error as Failure, EventType, OneshotWatcher, SessionState, StateWatcher, WatchedEvent};

use super::{
    client::Session,
    records::Records,
    watch::{BATCH, Follower, WITHIN},
};
use crate::{
    error::{Error, Result},
    registry::{BoxFuture, WatchSender},
};

/// What fired: the children's watch, or one's by its name.
type Fired = (Option<String>, WatchedEvent);

#[derive(Default)]
struct Watches {
    waiting: FuturesUnordered<BoxFuture<'static, Fired>>,
    /// Whose data is watched.
    names: HashSet<String>,
}

impl Watches {
    fn add(&mut self, name: Option<String>, watcher: OneshotWatcher) {
        self.names.extend(name.clone());
        self.waiting.push(Box::pin(async move { (name, watcher.changed().await) }));
    }
}

impl Follower {
    /// Follows for as long as the session lives.
    pub(super) async fn follow_once(&mut self, session: &Session, sender: &WatchSender) -> Result<()> {
        let mut states = session.client().state_watcher();
        loop {
            self.connected(&mut states, sender).await?;
            let mut watches = Watches::default();
            let mut records = Records::default();
            let mut dirty = BTreeSet::new();
            let mut children = true;
            // Until there is a new connection: then all is read again.
            loop {
                if children && !self.read_children(session, &mut watches, &mut records, &mut dirty).await? {
                    dirty.clear();
                    self.tell_none(sender);
                } else if children || !dirty.is_empty() {
                    self.read_dirty(session, &mut watches, &mut records, std::mem::take(&mut dirty)).await?;
                    self.tell(&records, sender);
                }
                children = false;
                let mut fired = tokio::select! {
                    fired = watches.waiting.next() => fired,
                    state = states.changed() => match state {
                        SessionState::Disconnected => {
                            self.tell_lost(sender);
                            continue;
                        }
                        state if state.is_terminated() => return Err(self.over()),
                        _ => break,
                    },
                };
                sleep(BATCH).await;
                while let Some((name, event)) = fired {
                    if event.event_type == EventType::Session {
                        return Err(self.over());
                    }
                    match name {
                        None => children = true,
                        Some(name) => {
                            watches.names.remove(&name);
                            dirty.insert(name);
                        }
                    }
                    fired = watches.waiting.next().now_or_never().flatten();
                }
            }
        }
    }

    /// Waits for a connection, so that none that comes later is one more than what is read now knows of: the answer that
    /// the server is old ends one.
    async fn connected(&self, states: &mut StateWatcher, sender: &WatchSender) -> Result<()> {
        loop {
            match states.state() {
                SessionState::SyncConnected | SessionState::ConnectedReadOnly => return Ok(()),
                state if state.is_terminated() => return Err(self.over()),
                _ => {}
            }
            if timeout(WITHIN, states.changed()).await.is_err() {
                self.tell_lost(sender);
            }
        }
    }

    fn over(&self) -> Error {
        Error::unavailable(format!("{}: the session is over", self.inner.config.name))
    }

    /// Watches the children and notes whose data is to be read; tells whether there is a node at all, whose beginning
    /// is watched otherwise.
    async fn read_children(
        &self,
        session: &Session,
        watches: &mut Watches,
        records: &mut Records,
        dirty: &mut BTreeSet<String>,
    ) -> Result<bool> {
        let (client, path) = (session.client(), &self.place.path);
        loop {
            match client.list_and_watch_children(path).await {
                Ok((names, watcher)) => {
                    watches.add(None, watcher);
                    let names = records.keep(&self.place, names);
                    dirty.retain(|name| names.binary_search(name).is_ok());
                    let is_known = |name: &String| watches.names.contains(name) && records.holds(name);
                    dirty.extend(names.into_iter().filter(|name| !is_known(name)));
                    return Ok(true);
                }
                Err(Failure::NoNode) => *records = Records::default(),
                Err(failure) => return Err(self.inner.config.error(failure)),
            }
            let (stat, watcher) =
                client.check_and_watch_stat(path).await.map_err(|failure| self.inner.config.error(failure))?;
            if stat.is_none() {
                watches.add(None, watcher);
                return Ok(false);
            }
        }
    }

    async fn read_dirty(
        &self,
        session: &Session,
        watches: &mut Watches,
        records: &mut Records,
        dirty: BTreeSet<String>,
    ) -> Result<()> {
        for (name, read) in session.read_and_watch(&self.place.path, dirty).await? {
            let (data, watcher) = read.unzip();
            if let Some(watcher) = watcher {
                watches.add(Some(name.clone()), watcher);
            }
            records.put(&self.place, name, data.as_deref());
        }
        Ok(())
    }
}

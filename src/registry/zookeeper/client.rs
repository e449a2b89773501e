//! Sessions, requests and answers; no policy.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::time::timeout;
use zookeeper_client::{Acls, Client, CreateMode, Error as Failure, OneshotWatcher, StateWatcher};

use super::{
    config::{Config, PASSWORD},
    pipe::{self, Pipe},
};
use crate::{
    error::{Error, Kind, Result},
    util::task,
};

/// How long one request may take.
const WITHIN: Duration = Duration::from_secs(5);

/// How long a new session may take: a member that does not answer is passed over meanwhile.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// A connection that says nothing for so long is given up for another member's; or two fifths of the session, if
/// that is less.
const MEMBER_WITHIN: Duration = Duration::from_secs(3);

/// So many nodes are read at once.
const AT_ONCE: usize = 32;

/// So often what another did between two requests is met.
const TRIES: usize = 8;

/// A live session. The last clone's drop closes it, and its ephemeral nodes go with it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    client: Client,
    config: Arc<Config>,
    /// Whether a member did not know watches that stay.
    old: Arc<AtomicBool>,
}

/// Whose a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Us(i32),
    Another(i32),
    Nobody,
}

impl Session {
    pub(super) async fn connect(config: &Arc<Config>) -> Result<Self> {
        let within = (config.session * 2 / 5).min(MEMBER_WITHIN);
        let mut pipe = Pipe::open(&config.members, config.tls.clone(), within).await?;
        let mut connector = Client::connector()
            .with_session_timeout(config.session)
            .with_connection_timeout(within)
            .with_fail_eagerly()
            // Before all others.
            .with_auth(pipe::SCHEME, &pipe.key());
        if let Some(credentials) = &config.credentials {
            let digest = format!("{}:{}", credentials.user, credentials.password(PASSWORD).await?);
            connector = connector.with_auth("digest", digest.as_bytes());
        }
        let hosts = pipe.hosts()?;
        let connected = pipe.carry_until(timeout(CONNECT_WITHIN, connector.connect(&hosts))).await;
        let client = connected.unwrap_or(Err(Failure::Timeout)).map_err(|failure| {
            let why = pipe.failed().unwrap_or_else(|| config.error(failure));
            why.context("no session with ZooKeeper")
        })?;
        let states = client.state_watcher();
        task::spawn_bounded(async move {
            pipe.carry_until(ended(states)).await;
            pipe.close().await;
        });
        Ok(Self { client, config: config.clone(), old: Arc::default() })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What a lease is found by: ids may be negative.
    pub(super) fn token(&self) -> String {
        format!("{:016x}", self.client.session_id().0)
    }

    /// What the server granted.
    pub(super) fn ttl(&self) -> Duration {
        self.client.session_timeout()
    }

    pub(super) fn is_over(&self) -> bool {
        self.client.state().is_terminated()
    }

    /// Whether only watches that fire once are of use.
    pub(super) fn is_old(&self) -> bool {
        self.old.load(Relaxed)
    }

    pub(super) fn set_old(&self) {
        self.old.store(true, Relaxed);
    }

    /// Puts a node of ours there, whatever was there before.
    pub(super) async fn put(&self, parent: &str, path: &str, data: &[u8]) -> Result<()> {
        let mut last = Failure::NodeExists;
        for _ in 0..TRIES {
            match self.try_put(parent, path, data).await {
                Ok(()) => return Ok(()),
                Err(failure @ (Failure::BadVersion | Failure::NodeExists)) => last = failure,
                // It may have been done: then the node is ours.
                Err(failure) if is_lost(&failure) => last = failure,
                // The parent, or the node that was to be overwritten, went meanwhile.
                Err(failure @ Failure::NoNode) => last = failure,
                Err(failure) => return Err(self.config.error(failure)),
            }
        }
        Err(self.config.error(last))
    }

    async fn try_put(&self, parent: &str, path: &str, data: &[u8]) -> Result<(), Failure> {
        let ephemeral = CreateMode::Ephemeral.with_acls(self.acls());
        match within(self.client.create(path, data, &ephemeral)).await {
            Err(Failure::NoNode) => {
                within(self.client.mkdir(parent, &CreateMode::Persistent.with_acls(self.acls()))).await?;
                Err(Failure::NoNode)
            }
            Err(Failure::NodeExists) => match self.try_owner(path).await? {
                Owner::Us(version) => within(self.client.set_data(path, data, Some(version))).await.map(drop),
                Owner::Another(version) => {
                    within(self.client.delete(path, Some(version))).await?;
                    Err(Failure::NodeExists)
                }
                Owner::Nobody => Err(Failure::NodeExists),
            },
            created => created.map(drop),
        }
    }

    /// As Kratos: all to the user, or to everybody where there is none.
    fn acls(&self) -> Acls<'static> {
        if self.config.credentials.is_some() { Acls::creator_all() } else { Acls::anyone_all() }
    }

    pub(super) async fn owner(&self, path: &str) -> Result<Owner> {
        self.try_owner(path).await.map_err(|failure| self.config.error(failure))
    }

    async fn try_owner(&self, path: &str) -> Result<Owner, Failure> {
        let stat = within(self.client.check_stat(path)).await?;
        let ours = self.client.session_id().0;
        Ok(match stat {
            None => Owner::Nobody,
            Some(stat) if stat.ephemeral_owner == ours => Owner::Us(stat.version),
            Some(stat) => Owner::Another(stat.version),
        })
    }

    /// Deletes a node if it is ours.
    pub(super) async fn remove(&self, path: &str, bound: Duration) -> Result<()> {
        let removed = timeout(bound, async {
            for _ in 0..TRIES {
                match self.try_remove(path).await {
                    Err(Failure::BadVersion) => {}
                    Err(failure) if is_lost(&failure) => {}
                    removed => return removed,
                }
            }
            Err(Failure::ConnectionLoss)
        });
        match removed.await.unwrap_or(Err(Failure::Timeout)) {
            // The nodes of a session go with it.
            Err(Failure::SessionExpired | Failure::ClientClosed) => Ok(()),
            removed => removed.map_err(|failure| self.config.error(failure)),
        }
    }

    async fn try_remove(&self, path: &str) -> Result<(), Failure> {
        let Owner::Us(version) = self.try_owner(path).await? else { return Ok(()) };
        match self.client.delete(path, Some(version)).await {
            Err(Failure::NoNode) => Ok(()),
            deleted => deleted,
        }
    }

    /// The names of a node's children; none if there is no such node.
    pub(super) async fn children(&self, path: &str) -> Result<Option<Vec<String>>> {
        // A member may lag behind the one asked before.
        let listed = async {
            self.client.sync(path).await?;
            self.client.list_children(path).await
        };
        match within(listed).await {
            Ok(names) => Ok(Some(names)),
            Err(Failure::NoNode) => Ok(None),
            Err(failure) => Err(self.config.error(failure)),
        }
    }

    /// Reads these children, so many at once; one that is gone by now has no data.
    pub(super) async fn read(&self, path: &str, names: Vec<String>) -> Result<Vec<(String, Option<Vec<u8>>)>> {
        self.each(
            names,
            |name| async move { self.client.get_data(&format!("{path}/{name}")).await.map(|(data, _)| data) },
        )
        .await
    }

    /// The same, with a watch on each.
    pub(super) async fn read_and_watch(
        &self,
        path: &str,
        names: BTreeSet<String>,
    ) -> Result<Vec<(String, Option<(Vec<u8>, OneshotWatcher)>)>> {
        self.each(names, |name| async move {
            let read = self.client.get_and_watch_data(&format!("{path}/{name}")).await;
            read.map(|(data, _, watcher)| (data, watcher))
        })
        .await
    }

    async fn each<T: Send, F: Future<Output = Result<T, Failure>> + Send>(
        &self,
        names: impl IntoIterator<Item = String, IntoIter: Send> + Send,
        read: impl Fn(String) -> F + Send + Sync,
    ) -> Result<Vec<(String, Option<T>)>> {
        let read = |name: String| async {
            match within(read(name.clone())).await {
                Ok(read) => Ok((name, Some(read))),
                Err(Failure::NoNode) => Ok((name, None)),
                Err(failure) => Err(self.config.error(failure)),
            }
        };
        let mut reads = stream::iter(names.into_iter().map(read)).buffer_unordered(AT_ONCE);
        let mut all = Vec::new();
        while let Some(one) = reads.next().await {
            all.push(one?);
        }
        Ok(all)
    }
}

/// Waits for the end of a session: at the latest after its time without an answer, and soon where nobody needs it.
async fn ended(mut states: StateWatcher) {
    while !states.peek_state().is_terminated() {
        states.changed().await;
    }
}

/// Whether a connection ended under a request: those that say nothing end with an error of the client's own.
fn is_lost(failure: &Failure) -> bool {
    matches!(failure, Failure::ConnectionLoss | Failure::Custom(_))
}

async fn within<T>(request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(WITHIN, request).await.unwrap_or(Err(Failure::Timeout))
}

impl Config {
    pub(super) fn error(&self, failure: Failure) -> Error {
        let name = &self.name;
        let (kind, context) = match &failure {
            Failure::NoAuth => {
                let how = match &self.credentials {
                    Some(credentials) => format!("the user {:?} or its password", credentials.user),
                    None => "who asks without user= and password_file=".to_owned(),
                };
                (Kind::PermissionDenied, format!("{name}: the node's ACL does not let {how} do this"))
            }
            Failure::AuthFailed => (
                Kind::PermissionDenied,
                format!("{name}: the user or its password is not taken; see user=, password_file="),
            ),
            Failure::InvalidAcl => (Kind::PermissionDenied, format!("{name}: the ACL is not taken")),
            Failure::BadArguments(_) => (Kind::InvalidInput, format!("{name}: this cannot be asked")),
            Failure::QuotaExceeded => (Kind::Exhausted, format!("{name}: a quota is used up")),
            Failure::NodeExists | Failure::BadVersion => {
                (Kind::Conflict, format!("{name}: another writes the same node again and again"))
            }
            Failure::Timeout => (Kind::Unavailable, format!("{name} does not answer")),
            _ => (Kind::Unavailable, format!("{name} does not answer well")),
        };
        Error::with_source(kind, context, failure)
    }
}

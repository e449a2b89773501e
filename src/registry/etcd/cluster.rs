//! The way to etcd's members: one channel for all of them, a token where they want one, another member where one
//! does not answer.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::runtime::Id;
use tonic::{Code, Request, Response, Status, metadata::AsciiMetadataValue};

use super::{
    config::{Config, PASSWORD},
    proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient},
};
use crate::{
    balance::{Policy, RoundRobin},
    channel::{Channel, Keepalive},
    endpoint::{Endpoint, EndpointKey},
    error::{Error, Kind, Result},
    instance::{Address, ServiceInstance},
    util::{backoff::BackoffConfig, task},
};

/// All members of a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    config: Config,
    /// Of each runtime its own: a channel works where it was made, and ends with that runtime.
    channels: Mutex<Vec<(Id, Channel)>>,
    token: tokio::sync::Mutex<Option<Token>>,
}

/// What the cluster said to our name and password; no text where it wants none.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(Option<AsciiMetadataValue>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// What etcd, or the channel in its place, said.
    Status(Status),
    /// What kept us from asking.
    Here(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

impl Failure {
    pub(super) fn is(&self, code: Code) -> bool {
        matches!(self, Self::Status(status) if status.code() == code)
    }

    pub(super) fn says(&self, what: &str) -> bool {
        matches!(self, Self::Status(status) if status.message().contains(what))
    }

    /// Whether etcd answered, and would say the same again.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Status(status) if !another_may_answer(status))
    }
}

/// More runtimes than any program has at once.
const MOST_CHANNELS: usize = 16;

/// A connection that was silent for so long is to answer a PING,
pub(super) const PING_AFTER: Duration = Duration::from_secs(10);
/// within so long: then it is found broken before a watch on it gives up, which may else be begun there once more.
pub(super) const PING_WITHIN: Duration = Duration::from_secs(4);

/// How often one call is tried, at one member or another.
const MOST_TRIES: usize = 3;

const LOGIN_WITHIN: Duration = Duration::from_secs(2);

/// Larger than one page of values, or one fragment of events.
pub(super) const MAX_MESSAGE: usize = 32 << 20;

impl Cluster {
    pub(super) fn new(config: Config) -> Self {
        Self { config, channels: Mutex::default(), token: tokio::sync::Mutex::default() }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The channel of this runtime, made when first asked for.
    fn channel(&self) -> Result<Channel> {
        let runtime = task::require_runtime("the etcd registry")?.id();
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, channel)) = channels.iter().find(|(id, _)| *id == runtime) {
            return Ok(channel.clone());
        }
        let channel = self.connect()?;
        if channels.len() >= MOST_CHANNELS {
            // Most likely its runtime is gone; else it is made anew.
            channels.remove(0);
        }
        channels.push((runtime, channel.clone()));
        Ok(channel)
    }

    fn connect(&self) -> Result<Channel> {
        let Config { endpoints, tls, observer, .. } = &self.config;
        let members = endpoints.iter().map(|address| self.member(address)).collect::<Result<Vec<_>>>()?;
        let builder = Channel::builder("etcd")
            .endpoints(members)
            .policy(Policy::new("round_robin", RoundRobin::new))
            .wait_for_ready(false)
            .patience(Duration::from_secs(2))
            .connect_timeout(Duration::from_secs(3))
            .backoff(BackoffConfig::spread(Duration::from_secs(3)))
            .keepalive(Keepalive::every(PING_AFTER).timeout(PING_WITHIN))
            .observer(observer.clone());
        let builder = match endpoints.first() {
            Some(first) => builder.authority(first.authority().to_string()),
            None => builder,
        };
        match tls {
            Some(tls) => builder.tls(tls.clone()),
            None => builder,
        }
        .connect_lazy()
    }

    fn member(&self, address: &Address) -> Result<Endpoint> {
        let instance = ServiceInstance::builder("etcd", address.authority().to_string())?.address(address.clone());
        let key = EndpointKey::from(address.clone());
        // Each member proves its own host, unless all are to prove one name.
        let key = match (&self.config.tls, address.host()) {
            (Some(tls), Some(host)) if tls.expects().is_none() => key.with_server_name(host),
            _ => key,
        };
        Ok(Endpoint::new(key, instance.build()?))
    }

    /// Asks until a member answers: each try has so long.
    pub(super) async fn call<M, R, F>(
        &self,
        within: Duration,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F + Send + Sync,
    ) -> Result<R, Failure>
    where
        M: Clone + Send + Sync,
        R: Send,
        F: Future<Output = Result<Response<R>, Status>> + Send,
    {
        let (mut tries, mut refused) = (0, false);
        loop {
            tries += 1;
            let token = self.token().await?;
            let mut request = self.request(message.clone(), &token);
            request.set_timeout(within);
            let status = match send(self.channel()?, request).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            if is_token_refused(&status) && !refused {
                refused = true;
                self.forget(&token).await;
            } else if !another_may_answer(&status) || tries >= self.tries() {
                return Err(Failure::Status(status));
            }
        }
    }

    /// Opens a stream, of a member that is picked anew, and tells by what token.
    pub(super) async fn open<M, R, F>(
        &self,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F + Send,
    ) -> Result<(R, Token), Failure>
    where
        M: Send,
        F: Future<Output = Result<Response<R>, Status>> + Send,
    {
        let token = self.token().await?;
        let request = self.request(message, &token);
        match send(self.channel()?, request).await {
            Ok(answer) => Ok((answer.into_inner(), token)),
            Err(status) => {
                if is_token_refused(&status) {
                    self.forget(&token).await;
                }
                Err(Failure::Status(status))
            }
        }
    }

    fn tries(&self) -> usize {
        self.config.endpoints.len().clamp(2, MOST_TRIES)
    }

    fn request<M>(&self, message: M, token: &Token) -> Request<M> {
        let mut request = Request::new(message);
        // A member that is cut off from the others must say so, not wait for them.
        request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
        if let Token(Some(token)) = token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// The token to show, asked for when there is none.
    async fn token(&self) -> Result<Token, Failure> {
        let Some(credentials) = &self.config.credentials else { return Ok(Token(None)) };
        let mut held = self.token.lock().await;
        if let Some(token) = &*held {
            return Ok(token.clone());
        }
        let password = credentials.password(PASSWORD).await?;
        let message = AuthenticateRequest { name: credentials.user.clone(), password };
        let mut tries = 0;
        let token = loop {
            tries += 1;
            let mut request = self.request(message.clone(), &Token(None));
            request.set_timeout(LOGIN_WITHIN);
            match AuthClient::new(self.channel()?).authenticate(request).await {
                Ok(answer) => {
                    let mut token = AsciiMetadataValue::try_from(answer.into_inner().token).map_err(|source| {
                        Error::with_source(Kind::Corrupt, "etcd's token is no text for a header", source)
                    })?;
                    token.set_sensitive(true);
                    break Token(Some(token));
                }
                Err(status) if status.message().contains("authentication is not enabled") => break Token(None),
                Err(status) if another_may_answer(&status) && tries < self.tries() => {}
                Err(status) => return Err(Failure::Status(status)),
            }
        };
        *held = Some(token.clone());
        Ok(token)
    }

    /// Asks for a new token the next time, unless somebody has one already.
    pub(super) async fn forget(&self, refused: &Token) {
        let mut held = self.token.lock().await;
        if held.as_ref() == Some(refused) {
            *held = None;
        }
    }

    /// The failure as it is told, with what to do about it.
    pub(super) fn error(&self, failure: Failure) -> Error {
        let name = &self.config.name;
        let status = match failure {
            Failure::Here(error) => return error,
            Failure::Status(status) => status,
        };
        let message = status.message();
        let user = self.config.credentials.as_ref().map(|credentials| credentials.user.as_str());
        let (kind, hint) = match (status.code(), user) {
            _ if message.contains("user name is empty") => {
                (Kind::PermissionDenied, "; it wants a user: set user= and password_file=, or ETCDCTL_USER".to_owned())
            }
            _ if message.contains("authentication failed") => {
                (Kind::PermissionDenied, format!("; check the password of user {:?}", user.unwrap_or_default()))
            }
            (Code::PermissionDenied, user) => {
                let namespace = match &*self.config.namespace {
                    "" => "",
                    namespace => &format!(" under {namespace}/"),
                };
                let who = user.map_or_else(|| "the user".to_owned(), |user| format!("user {user:?}"));
                (Kind::PermissionDenied, format!("; grant a role of {who} readwrite on the keys{namespace}"))
            }
            (Code::Unauthenticated, _) => (Kind::PermissionDenied, String::new()),
            (Code::InvalidArgument, _) => (Kind::InvalidInput, String::new()),
            (Code::DeadlineExceeded, _) => (Kind::DeadlineExceeded, String::new()),
            (Code::ResourceExhausted, _) => (Kind::Exhausted, String::new()),
            (Code::OutOfRange, _) if message.contains("TTL") => (Kind::InvalidInput, String::new()),
            _ => (Kind::Unavailable, String::new()),
        };
        Error::new(kind, format!("{name}: {message}{hint}"))
    }
}

/// Whether the token is what is wrong: it timed out, its member restarted, or what users may was changed.
pub(super) fn is_token_refused(status: &Status) -> bool {
    let message = status.message();
    status.code() == Code::Unauthenticated || TOKEN_REFUSED.iter().any(|refused| message.contains(refused))
}

const TOKEN_REFUSED: [&str; 3] = ["invalid auth token", "revision of auth store is old", "user name is empty"];

fn another_may_answer(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled)
        && !is_token_refused(status)
}

const _: () = {
    const fn shared<T: Send + Sync + 'static>() {}
    shared::<Arc<Cluster>>();
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Etcd;

    #[test]
    fn what_etcd_says_is_told_with_what_to_do_about_it() {
        let etcd = Etcd::builder(["127.0.0.1:1"]).user("app", "hunter2").build().expect("on this machine");
        let told = |code, message: &str| {
            let error = etcd.cluster.error(Failure::Status(Status::new(code, message)));
            (error.kind(), error.to_string())
        };
        for (code, message, kind, hint) in [
            (Code::PermissionDenied, "etcdserver: permission denied", Kind::PermissionDenied, "readwrite"),
            (Code::InvalidArgument, "etcdserver: user name is empty", Kind::PermissionDenied, "password_file"),
            (Code::InvalidArgument, "etcdserver: authentication failed, …", Kind::PermissionDenied, "user \"app\""),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Kind::PermissionDenied, "token"),
            (Code::InvalidArgument, "etcdserver: request is too large", Kind::InvalidInput, "too large"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Kind::Exhausted, "space"),
            (Code::Unavailable, "etcdserver: no leader", Kind::Unavailable, "etcd://127.0.0.1:1"),
            (Code::Unimplemented, "no such method", Kind::Unavailable, "no such method"),
        ] {
            let (is, said) = told(code, message);
            assert!(is == kind && said.contains(hint) && !said.contains("hunter2"), "{is:?}: {said}");
        }
    }

    #[test]
    fn another_member_is_asked_only_where_that_may_help() {
        let again = |code, message: &str| another_may_answer(&Status::new(code, message));
        assert!(again(Code::Unavailable, "etcdserver: no leader") && again(Code::DeadlineExceeded, "late"));
        assert!(!again(Code::PermissionDenied, "etcdserver: permission denied"));
        assert!(!again(Code::ResourceExhausted, "etcdserver: too many requests"));
        assert!(!again(Code::Unavailable, "the watch was cancelled: etcdserver: invalid auth token"));
        assert!(is_token_refused(&Status::invalid_argument("etcdserver: revision of auth store is old")));
    }
}

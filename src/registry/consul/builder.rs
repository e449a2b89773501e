//! How the registry is made by value.

use std::{path::Path, sync::Arc, time::Duration};

use super::{
    Consul,
    client::Client,
    codec::{ConsulCheck, Reading, Shape},
    config::Config,
};
use crate::{
    error::{Error, Result},
    instance::{Address, Scheme},
    observe::{Observer, default_observer},
    registry::{
        limit::MAX_INSTANCES,
        wire::{Secret, keeps_secret, with_port},
    },
    tls::ClientTls,
};

/// Builds a [`Consul`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ConsulBuilder {
    agents: Vec<String>,
    allow_plaintext: bool,
    pub(super) config: Config,
}

const DEFAULT_PORT: u16 = 8500;

/// Consul takes no longer waits.
const MAX_WAIT: Duration = Duration::from_secs(600);
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

impl ConsulBuilder {
    pub(super) fn new(agents: Vec<String>) -> Self {
        let shape = Shape {
            ttl: Consul::DEFAULT_TTL,
            checks: Vec::new(),
            interval: Duration::from_secs(10),
            path: "/".to_owned(),
            deregister_after: Duration::from_secs(600),
            tags: Vec::new(),
            qualified: false,
        };
        let config = Config {
            agents: Vec::new(),
            datacenters: Vec::new(),
            token: None,
            namespace: None,
            partition: None,
            tag: None,
            near: None,
            stale: false,
            wait: Duration::from_secs(55),
            shape,
            reading: Reading { scheme: Scheme::Grpc, datacenter: false, most: MAX_INSTANCES },
            tls: None,
            observer: default_observer(),
            name: "consul://".into(),
        };
        Self { agents, allow_plaintext: false, config }
    }

    /// Finds the instances of these datacenters, all together; each has its name in the metadata, as `dc`.
    /// Default: those of the agent's own.
    pub fn datacenters<D: Into<String>>(mut self, names: impl IntoIterator<Item = D>) -> Self {
        self.config.datacenters = names.into_iter().map(Into::into).collect();
        self.config.reading.datacenter = !self.config.datacenters.is_empty();
        self
    }

    /// Sets how many instances of one service are held at most; what is more is counted as skipped, and told.
    /// Default 20,000.
    pub fn max_instances(mut self, most: usize) -> Self {
        self.config.reading.most = most.max(1);
        self
    }

    /// Asks with this ACL token. Default: none.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.config.token = Some(Secret::Text(token.into().into()));
        self
    }

    /// Asks with the ACL token in a file, which is read again for each request.
    pub fn token_file(mut self, path: impl AsRef<Path>) -> Self {
        self.config.token = Some(Secret::File(path.as_ref().to_owned()));
        self
    }

    /// Sets whether a token may leave this machine without TLS. Default: no.
    pub fn allow_plaintext_token(mut self, allow: bool) -> Self {
        self.allow_plaintext = allow;
        self
    }

    /// Sets the namespace (of Consul Enterprise). Default: the token's.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.config.namespace = Some(namespace.into());
        self
    }

    /// Sets the partition (of Consul Enterprise). Default: the token's.
    pub fn partition(mut self, partition: impl Into<String>) -> Self {
        self.config.partition = Some(partition.into());
        self
    }

    /// Finds only instances with this tag. Default: all.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.config.tag = Some(tag.into());
        self
    }

    /// Registers with these tags too, beside the version's. Default: none.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.config.shape.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Asks for the instances nearest to this node first, `_agent` for the agent's own. Default: unsorted.
    pub fn near(mut self, node: impl Into<String>) -> Self {
        self.config.near = Some(node.into());
        self
    }

    /// Lets any server answer, not the leader alone: cheaper for it, and late by milliseconds. Default: no.
    pub fn stale(mut self, stale: bool) -> Self {
        self.config.stale = stale;
        self
    }

    /// Sets how long one question waits for a change, 1 s to 10 min. Default 55 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.config.wait = wait.clamp(Duration::from_secs(1), MAX_WAIT);
        self
    }

    /// Sets how long an instance passes without a renewal, at most a day. Default 15 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.config.shape.ttl = ttl.clamp(Duration::from_secs(1), MAX_TTL);
        self
    }

    /// Lets the agent check each instance too, [this often](Self::check_interval) and within 5 s. Default: renewals
    /// alone.
    ///
    /// An agent that cannot reach the instance takes it out of use by such a check, and out of the catalog
    /// [later](Self::deregister_after).
    pub fn checks(mut self, checks: impl IntoIterator<Item = ConsulCheck>) -> Self {
        self.config.shape.checks = checks.into_iter().collect();
        self
    }

    /// Sets how often the agent's own [checks](Self::checks) run. Default 10 s.
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.config.shape.interval = interval.max(Duration::from_secs(1));
        self
    }

    /// Sets what the agent's [HTTP check](ConsulCheck::Http) asks for. Default `/`.
    pub fn check_path(mut self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.config.shape.path = if path.starts_with('/') { path } else { format!("/{path}") };
        self
    }

    /// Sets how long Consul keeps an instance that does not pass, at least a minute. Default 10 min.
    pub fn deregister_after(mut self, after: Duration) -> Self {
        self.config.shape.deregister_after = after.max(Duration::from_secs(60));
        self
    }

    /// Writes ids as `ID@SERVICE`: an agent's ids are one space for all of its services. Such ids are read as
    /// `ID` either way. Default: no, as Kratos.
    pub fn qualified_ids(mut self, qualified: bool) -> Self {
        self.config.shape.qualified = qualified;
        self
    }

    /// Sets what the addresses of services speak that have no more than a host and a port. Default: gRPC.
    pub fn foreign_scheme(mut self, scheme: Scheme) -> Self {
        self.config.reading.scheme = scheme;
        self
    }

    /// Asks over TLS. An agent's certificate must be for the host it is asked at, or for the
    /// [name](ClientTls::server_name) that is set. Files that change are read again. Default: plaintext.
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.config.tls = Some(tls);
        self
    }

    /// Sets who is told of services that are skipped. Default: [`Tracing`](crate::observe::Tracing).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.config.observer = observer;
        self
    }

    /// Builds the registry; nothing is asked of Consul yet.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if an agent is no `host:port`, if there is none, if a file of
    /// the TLS options cannot be read, or if a token would leave this machine in plaintext.
    pub fn build(self) -> Result<Consul> {
        let Self { agents, allow_plaintext, mut config } = self;
        let secure = config.tls.is_some();
        let agents = agents.iter().filter(|agent| !agent.is_empty());
        let agents: Vec<_> = agents.map(|agent| parse(agent, secure)).collect::<Result<_>>()?;
        if agents.is_empty() {
            return Err(Error::invalid("Consul has no agent; write it as consul://127.0.0.1:8500"));
        }
        if config.token.is_some() && !allow_plaintext {
            keeps_secret("Consul's token", &agents, PLAINTEXT_KEY)?;
        }
        let hosts: Vec<_> = agents.iter().map(|agent| agent.authority().to_string()).collect();
        config.name = format!("consul://{}", hosts.join(",")).into();
        config.agents = agents.iter().map(ToString::to_string).collect();
        Ok(Consul { client: Arc::new(Client::new(config)?) })
    }
}

/// The key of a URI's query that lets a token go in plaintext.
pub(super) const PLAINTEXT_KEY: &str = "plaintext_token";

/// Reads `host:port`, with `http://` or `https://` before it as Consul's own programs write it.
fn parse(text: &str, secure: bool) -> Result<Address> {
    let wrong =
        |why: &str| Error::invalid(format!("{text:?} is no agent of Consul: {why}; write it as 127.0.0.1:8500"));
    let (scheme, rest) = text.trim().split_once("://").unwrap_or_else(|| ("", text.trim()));
    match (scheme, secure) {
        ("", _) | ("http", false) | ("https", true) => {}
        ("http", true) => return Err(wrong("it says http, but TLS is asked for")),
        ("https", false) => {
            return Err(wrong("it says https: name the issuer of its certificate by ca=, or ca=system"));
        }
        _ => return Err(wrong("its scheme is not http or https")),
    }
    let rest = rest.trim_end_matches('/');
    if rest.contains(['@', '/']) {
        return Err(wrong("it is more than a host and a port"));
    }
    let rest = with_port(rest, DEFAULT_PORT);
    let address = format!("{}://{rest}", if secure { "https" } else { "http" }).parse::<Address>();
    address.map_err(|error| Error::with_source(error.kind(), wrong("it lacks a host and a port").to_string(), error))
}

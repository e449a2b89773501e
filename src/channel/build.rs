//! From what a builder was told to a channel that runs.

use std::sync::Arc;

use http::{
    HeaderValue,
    uri::{Authority, Scheme},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{runtime::RuntimeFlavor, time::timeout};

#[cfg(feature = "tls")]
use crate::tls::ClientTls;

use super::{
    Channel,
    builder::{ChannelBuilder, From},
    call::Calls,
    cell::Cell,
    idle::Use,
    line::Line,
    pool::{Pool, PoolConfig},
    published::Published,
    source::Source,
    transport::{Dialer, Security},
};
use crate::{
    error::{Error, Kind, Result},
    filter::Filters,
    instance::ServiceName,
    observe::Observer,
    registry::Registry,
    resolver::Resolver,
    target::Target,
    util::{
        rng::{Draws, Rng},
        task,
    },
};

impl ChannelBuilder {
    /// Makes the channel and waits for a first ready endpoint.
    ///
    /// # Errors
    ///
    /// See [`Channel::connect`].
    pub async fn connect(self) -> Result<Channel> {
        let (bound, wait) = (self.ready_timeout, self.connect_lazy()?);
        if timeout(bound, wait.calls.ready()).await.is_ok() {
            return Ok(wait);
        }
        let context = format!("{}: waited {bound:.1?} for a first ready endpoint", wait.calls.service);
        Err(match &**wait.calls.cell.load() {
            Published::Ready(_) => return Ok(wait.clone()),
            Published::Idle => Error::unavailable(context),
            Published::Waiting(why) | Published::Failing(why) => {
                Error::with_source(Kind::Unavailable, context, why.clone())
            }
        })
    }

    /// Makes the channel, which connects in the background.
    ///
    /// # Errors
    ///
    /// See [`Channel::connect_lazy`].
    pub fn connect_lazy(self) -> Result<Channel> {
        let runtime = task::require_runtime("a channel")?;
        let seed = self.seed.unwrap_or_else(|| Rng::from_entropy().next_u64());
        let target = parse(&self.target, &self.from)?;
        let service = target.service().clone();
        let filters = Filters::from(&target);
        let security = security(
            &target,
            #[cfg(feature = "tls")]
            self.tls,
            &self.observer,
        )?;
        let secure = security.is_on();
        let resolve = |registry: Registry| -> Box<dyn Source> {
            let connector = self.connector.clone();
            let resolver = Resolver::new(service.clone(), registry.discovery().watch(&service))
                .with_filters(filters)
                .with_carrier(move |address| (secure || !address.scheme().is_secure()) && connector.carries(address))
                .with_observer(self.observer.clone())
                .with_seed(seed);
            Box::new(resolver)
        };
        let policy = target.policy().map_or(Ok(self.policy), str::parse)?;
        let source = match self.from {
            From::Target(schemes) => resolve(schemes.open(target.registry())?),
            From::Registry(registry) => resolve(registry.resilient_telling(self.observer.clone())),
            From::Discover(source) => source,
        };
        let line = Arc::new(Line::default());
        let calls = Arc::new(Calls {
            authority: authority(self.authority.as_deref(), &service)?,
            scheme: if secure { Scheme::HTTPS } else { Scheme::HTTP },
            user_agent: user_agent(self.user_agent.as_deref())?,
            timeout: target.timeout().or(self.timeout),
            patience: self.patience,
            wait_for_ready: self.wait_for_ready,
            report_endpoint: self.report_endpoint,
            draws: Draws::new(self.seed),
            line: line.clone(),
            used: Use::default(),
            cell: Cell::new(Published::Waiting(Error::unavailable("the channel has just begun"))),
            service,
        });
        let pool = Pool::new(PoolConfig {
            calls: calls.clone(),
            source,
            balancer: policy.balancer(seed),
            dialer: Dialer {
                connector: self.connector,
                security,
                timeout: target.connect_timeout().unwrap_or(self.connect_timeout),
                keepalive: self.keepalive,
                pace: Arc::default(),
                line,
                max_stream_window: self.max_stream_window,
                max_header_list: self.max_metadata,
                coalesce: runtime.runtime_flavor() == RuntimeFlavor::MultiThread,
            },
            max_dials: self.max_dials,
            connections_per_endpoint: self.connections_per_endpoint,
            idle_timeout: self.idle_timeout,
            backoff: self.backoff,
            observer: self.observer,
            seed,
        });
        Ok(Channel { calls, _pool: task::spawn(pool.run()) })
    }
}

/// What the target asks for, else the builder.
fn security(
    target: &Target,
    #[cfg(feature = "tls")] set: Option<ClientTls>,
    #[cfg_attr(not(feature = "tls"), allow(unused_variables))] observer: &Arc<dyn Observer>,
) -> Result<Security> {
    #[cfg(feature = "tls")]
    {
        let asked = target.tls().map(|issuers| {
            let tls = ClientTls::new();
            let tls = if issuers == "system" { tls } else { tls.ca_file(issuers) };
            let tls = match target.tls_identity() {
                Some((chain, key)) => tls.identity_files(chain, key),
                None => tls,
            };
            match target.tls_name() {
                Some(name) => tls.server_name(name),
                None => tls,
            }
        });
        match asked.or(set) {
            Some(tls) => Ok(tls.prepare(target.service().as_str(), observer.clone())?.into()),
            None => Ok(Security::default()),
        }
    }
    #[cfg(not(feature = "tls"))]
    match target.tls() {
        Some(_) => Err(Error::new(Kind::Unsupported, "tls= in a target needs callsign's feature `tls`")),
        None => Ok(Security::default()),
    }
}

/// Reads what is called; where the registry is known, its service's name is enough.
fn parse(target: &str, from: &From) -> Result<Target> {
    if matches!(from, From::Target(_)) || target.contains("://") {
        return target.parse();
    }
    let target: Target = format!("registry:///{target}").parse()?;
    target.registry().expect_params(&[])?;
    Ok(target)
}

fn authority(set: Option<&str>, service: &ServiceName) -> Result<Authority> {
    match set {
        Some(set) => set.parse().map_err(|source| {
            Error::with_source(Kind::InvalidInput, format!("{set:?} cannot be an :authority"), source)
        }),
        None => service.as_str().parse().or_else(|_| {
            let encoded = utf8_percent_encode(service.as_str(), NON_ALPHANUMERIC).to_string();
            encoded.parse().map_err(|source| {
                Error::with_source(Kind::InvalidInput, format!("{service} cannot be an :authority; set one"), source)
            })
        }),
    }
}

/// The application's name, then the library's, as gRPC orders them.
fn user_agent(application: Option<&str>) -> Result<HeaderValue> {
    const OWN: &str = concat!("grpc-rust-callsign/", env!("CARGO_PKG_VERSION"));
    let Some(application) = application else { return Ok(HeaderValue::from_static(OWN)) };
    HeaderValue::try_from(format!("{application} {OWN}")).map_err(|source| {
        Error::with_source(Kind::InvalidInput, format!("{application:?} cannot be a user agent"), source)
    })
}

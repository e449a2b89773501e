//! From a URI to a registry.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use super::{Fixed, Memory, Registrar, Registry, Resilient, Shared, shared::WeakShared};
use crate::{
    error::{Error, Result},
    observe::{Observer, default_observer},
    target::RegistryUri,
};

/// Opens the registry of a URI, such as `file:///run/services`, by the schemes that this crate has.
///
/// The same URI is the same registry for as long as somebody holds it, or a watch of it. Nothing is asked of it yet.
/// For schemes of one's own see [`Schemes`].
///
/// # Errors
///
/// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if it is no URI, if its scheme is unknown, or if the registry cannot
/// make sense of it.
pub fn open(uri: &str) -> Result<Registry> {
    default_schemes().open(&uri.parse()?)
}

/// What all share who bring no schemes of their own: so a watch of the same service is one.
pub(crate) fn default_schemes() -> &'static Schemes {
    static DEFAULT: OnceLock<Schemes> = OnceLock::new();
    DEFAULT.get_or_init(Schemes::default)
}

/// Which scheme of a URI means which registry. A value: clones share what they have opened, and
/// nothing is global.
///
/// What it opens is [`Shared`] and [`Resilient`].
///
/// ```
/// use callsign::registry::{Fixed, Schemes};
///
/// let schemes = Schemes::default().with("lab", |_uri| {
///     Ok(Fixed::new(["grpc://10.0.0.5:9000".parse()?])?.into())
/// });
/// let registry = schemes.open(&"lab://".parse()?)?;
/// # Ok::<(), callsign::Error>(())
/// ```
#[derive(Clone)]
pub struct Schemes {
    factories: BTreeMap<Arc<str>, Factory>,
    observer: Arc<dyn Observer>,
    snapshots: Option<PathBuf>,
    linger: Duration,
    opened: Arc<Mutex<HashMap<RegistryUri, Opened>>>,
}

#[derive(Clone)]
enum Factory {
    BuiltIn(BuiltIn),
    Own(Arc<Own>),
}

type BuiltIn = fn(&RegistryUri, &Arc<dyn Observer>) -> Result<Registry>;
type Own = dyn Fn(&RegistryUri) -> Result<Registry> + Send + Sync;

impl Schemes {
    /// Sets the registry of a scheme, in place of the one it may have.
    #[must_use]
    pub fn with(
        mut self,
        scheme: &str,
        factory: impl Fn(&RegistryUri) -> Result<Registry> + Send + Sync + 'static,
    ) -> Self {
        self.factories.insert(scheme.to_ascii_lowercase().into(), Factory::Own(Arc::new(factory)));
        self.afresh()
    }

    /// Sets who is told of outages and of what was skipped. Default: [`Tracing`](crate::observe::Tracing).
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self.afresh()
    }

    /// Sets a directory to keep the last set of each service in, for a start when a registry does
    /// not answer; see [`Resilient::with_snapshots`]. Default: none.
    #[must_use]
    pub fn with_snapshots(mut self, directory: impl Into<PathBuf>) -> Self {
        self.snapshots = Some(directory.into());
        self.afresh()
    }

    /// Sets how long a watch outlives the last one who follows it. Default 30 s.
    #[must_use]
    pub fn with_linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self.afresh()
    }

    /// Opens the registry of a URI: the one opened before, while somebody holds that.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if the scheme is unknown, or whatever the registry has to say
    /// against the URI.
    pub fn open(&self, uri: &RegistryUri) -> Result<Registry> {
        let factory = self.factories.get(uri.scheme()).ok_or_else(|| self.unknown(uri.scheme()))?;
        if let Some(registry) = self.lock().get(uri).and_then(Opened::upgrade) {
            return Ok(registry);
        }
        // Without the lock: a factory may open others here, as one that merges them does.
        let registry = match factory {
            Factory::BuiltIn(open) => open(uri, &self.observer)?,
            Factory::Own(open) => open(uri)?,
        };
        let mut resilient = Resilient::new(registry.discovery().clone()).with_observer(self.observer.clone());
        if let Some(directory) = &self.snapshots {
            resilient = resilient.with_snapshots(directory, registry.name());
        }
        let shared = Shared::with_linger(Arc::new(resilient), self.linger);
        let mut opened = self.lock();
        opened.retain(|_, opened| opened.is_held());
        if let Some(meanwhile) = opened.get(uri).and_then(Opened::upgrade) {
            return Ok(meanwhile);
        }
        opened.insert(uri.clone(), Opened::new(&registry, &shared));
        Ok(registry.asked_by(shared))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RegistryUri, Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was opened with other settings is not to be found any more.
    fn afresh(self) -> Self {
        Self { opened: Arc::default(), ..self }
    }

    fn unknown(&self, scheme: &str) -> Error {
        let known: Vec<_> = self.factories.keys().map(|scheme| &**scheme).collect();
        let feature = match scheme {
            "consul" => "; consul:// needs the feature `consul` of callsign",
            "k8s" | "kubernetes" => "; kubernetes:// needs the feature `kubernetes` of callsign",
            "zookeeper" | "zk" => "; zookeeper:// needs the feature `zookeeper` of callsign",
            "etcd" => "; etcd:// needs the feature `etcd` of callsign",
            "file" => "; file:// needs the feature `file` of callsign",
            _ => "; add one of your own by Schemes::with",
        };
        Error::invalid(format!("no registry has the scheme {scheme:?}: there are {}{feature}", known.join(", ")))
    }
}

/// `memory`, `static`, and with their features `consul`, `etcd`, `file`, `kubernetes`
/// and `zookeeper`.
impl Default for Schemes {
    fn default() -> Self {
        let factories: &[(&str, BuiltIn)] = &[
            #[cfg(feature = "consul")]
            ("consul", super::Consul::open),
            #[cfg(feature = "etcd")]
            ("etcd", super::Etcd::open),
            #[cfg(feature = "file")]
            ("file", super::File::open),
            #[cfg(feature = "kubernetes")]
            ("k8s", super::Kubernetes::open),
            #[cfg(feature = "kubernetes")]
            ("kubernetes", super::Kubernetes::open),
            ("memory", |uri, _| Memory::open(uri)),
            ("static", |uri, _| Fixed::open(uri)),
            #[cfg(feature = "zookeeper")]
            ("zk", super::ZooKeeper::open),
            #[cfg(feature = "zookeeper")]
            ("zookeeper", super::ZooKeeper::open),
        ];
        let factory = |(scheme, open): &(&str, BuiltIn)| (Arc::from(*scheme), Factory::BuiltIn(*open));
        Self {
            factories: factories.iter().map(factory).collect(),
            observer: default_observer(),
            snapshots: None,
            linger: Shared::DEFAULT_LINGER,
            opened: Arc::default(),
        }
    }
}

impl fmt::Debug for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schemes").field("schemes", &self.factories.keys()).finish_non_exhaustive()
    }
}

/// A registry that is there while somebody holds it.
struct Opened {
    name: Arc<str>,
    registrar: Option<Weak<dyn Registrar>>,
    shared: WeakShared,
}

impl Opened {
    fn new(registry: &Registry, shared: &Shared) -> Self {
        Self {
            name: registry.name.clone(),
            registrar: registry.registrar.as_ref().map(Arc::downgrade),
            shared: shared.downgrade(),
        }
    }

    fn is_held(&self) -> bool {
        self.shared.is_held() && self.registrar.as_ref().is_none_or(|side| side.strong_count() > 0)
    }

    fn upgrade(&self) -> Option<Registry> {
        let registrar = match &self.registrar {
            Some(registrar) => Some(registrar.upgrade()?),
            None => None,
        };
        let discovery = Arc::new(self.shared.upgrade()?);
        Some(Registry { name: self.name.clone(), registrar, discovery, resilient: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeRegistry;

    fn uri(text: &str) -> RegistryUri {
        text.parse().expect(text)
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_uri_is_one_registry_and_one_upstream_watch() {
        let fake = FakeRegistry::new();
        let schemes = Schemes::default().with("fake", {
            let fake = fake.clone();
            move |_| Ok(fake.clone().into())
        });
        let service = "s".parse().expect("a name");
        let one = schemes.open(&uri("fake://h?a=1")).expect("known");
        let mut watches = vec![one.discovery().watch(&service)];
        watches.push(schemes.clone().open(&uri("FAKE://h/?a=1")).expect("known").discovery().watch(&service));
        for watch in &mut watches {
            assert!(watch.next().await.expect("open").is_not_found());
        }
        assert_eq!(fake.counts().watches_opened, 1);
        let other = schemes.open(&uri("fake://h?a=2")).expect("known");
        other.discovery().watch(&service).next().await.expect("open");
        assert_eq!(fake.counts().watches_opened, 2, "another URI is another registry");
        drop((one, other, watches));
        fake.until(|counts| counts.watches_alive == 0).await;
        assert!(schemes.opened.lock().expect("whole").values().all(|opened| !opened.is_held()));
    }

    #[tokio::test]
    async fn a_server_and_a_client_meet_in_memory() {
        let server = open("memory://a_server_and_a_client_meet").expect("known");
        let instance = crate::ServiceInstance::builder("s", "a").and_then(|builder| builder.build()).expect("valid");
        let lease = server.registrar().expect("both sides").register(&Arc::new(instance)).await.expect("memory");
        let client = open("memory://a_server_and_a_client_meet?ttl=5s").expect("known");
        let view = client.discovery().watch(lease.service()).next().await.expect("open");
        assert_eq!(view.snapshot().expect("known").instances().len(), 1);
    }

    #[test]
    fn an_unknown_scheme_says_which_there_are() {
        let error = open("zookeper://h").expect_err("a slip").to_string();
        assert!(error.contains("zookeper") && error.contains("memory, static"), "{error}");
        assert!(open("memory://?tll=1s").is_err() && open("memory://?ttl=0s").is_err());
    }
}

//! `kubernetes://`: EndpointSlices of Services, or Kratos's labels on Pods.

mod client;
mod codec;
mod connect;
mod known;
mod registrar;
mod slices;
mod subject;
mod watch;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::runtime::{Handle, Id};

use self::{
    client::Client,
    connect::Source,
    known::Known,
    slices::{Choice, is_dns_label},
    subject::Subject,
    watch::Follower,
};
use super::{
    BoxFuture, Discovery, Registry, Snapshot, Update, Watch,
    limit::{MAX_INSTANCES, MAX_INSTANCES_KEY, max_instances},
};
use crate::{
    error::{Error, Result},
    instance::ServiceName,
    observe::{Observer, default_observer},
    target::{RegistryUri, duration_param, ttl_param},
};

/// A Kubernetes cluster: its Services by their EndpointSlices, or [Pods](Self::pods) that register themselves.
///
/// Services are read as `service.namespace:port`; the namespace and the port may be left out. Nobody registers
/// there: Kubernetes lists a Pod when it is ready. In the mode of Pods servers write what Kratos's do, labels and
/// annotations of their own Pod, and clients read those.
///
/// Where the cluster is comes from a kubeconfig, or from the Pod that this runs in. The crate's guide has a page.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    source: Source,
    mode: Mode,
    namespace: Option<String>,
    pod: Option<String>,
    choice: Choice,
    ttl: Duration,
    idle: Duration,
    /// Objects: a slice has up to a thousand instances.
    most: usize,
    observer: Arc<dyn Observer>,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Slices,
    Pods,
}

#[derive(Default)]
struct Shared {
    /// Of the runtime that it was made in: its tasks end with that.
    client: tokio::sync::Mutex<Option<(Id, Client)>>,
    /// One writes at a time.
    writing: tokio::sync::Mutex<()>,
    /// Which lease each Pod holds.
    held: Mutex<HashMap<String, Held>>,
}

/// What a Pod is registered as by this handle.
#[derive(Debug, Clone)]
struct Held {
    token: Arc<str>,
    service: ServiceName,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Where every Pod finds its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

const KEYS: [&str; 13] = [
    MAX_INSTANCES_KEY,
    "mode",
    "kubeconfig",
    "context",
    "namespace",
    "pod",
    "scheme",
    "family",
    "hint_zone",
    "hint_node",
    "ttl",
    "idle",
    "plaintext",
];

impl Kubernetes {
    /// How long [`Pods`](Self::pods) that are registered are believed to stay so, unless [set](Self::with_ttl).
    pub const DEFAULT_TTL: Duration = Duration::from_secs(180);

    /// How long a watch may be silent before it is looked after, unless [set](Self::with_idle).
    pub const DEFAULT_IDLE: Duration = Duration::from_secs(90);

    /// The Services of the cluster that the kubeconfig, or the Pod that this runs in, names.
    #[must_use]
    pub fn new() -> Self {
        Self::in_mode(Mode::Slices)
    }

    /// Pods with Kratos's labels and annotations, in the same cluster.
    #[must_use]
    pub fn pods() -> Self {
        Self::in_mode(Mode::Pods)
    }

    fn in_mode(mode: Mode) -> Self {
        Self {
            source: Source::default(),
            mode,
            namespace: None,
            pod: None,
            choice: Choice::default(),
            ttl: Self::DEFAULT_TTL,
            idle: Self::DEFAULT_IDLE,
            most: MAX_INSTANCES,
            observer: default_observer(),
            shared: Arc::default(),
        }
    }

    /// Sets the file that says where the cluster is. Default: those of `KUBECONFIG`, else `~/.kube/config`, else
    /// what a Pod finds in itself.
    #[must_use]
    pub fn with_kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        self.source.kubeconfig = Some(path.into());
        self.afresh()
    }

    /// Sets which context of the kubeconfig is used. Default: its current one.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.source.context = Some(context.into());
        self.afresh()
    }

    /// Lets credentials be sent over plain http to another machine. Default: not.
    #[must_use]
    pub fn with_plaintext(mut self, allowed: bool) -> Self {
        self.source.plaintext = allowed;
        self.afresh()
    }

    /// Sets the namespace of names that say none, and of Pods. Default: for Pods `POD_NAMESPACE`, else the one of
    /// the service account; else the one of the kubeconfig's context.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets which Pod this runs in. Default: `POD_NAME`, else `HOSTNAME`.
    #[must_use]
    pub fn with_pod(mut self, pod: impl Into<String>) -> Self {
        self.pod = Some(pod.into());
        self
    }

    /// Sets whether the endpoints of Services are `grpcs`, which only a channel with TLS calls. Default: `grpc`.
    #[must_use]
    pub fn with_secure(mut self, secure: bool) -> Self {
        self.choice.secure = secure;
        self
    }

    /// Sets whether a Pod with addresses of both families is called by IPv6. Default: by IPv4.
    #[must_use]
    pub fn with_ipv6_first(mut self, first: bool) -> Self {
        self.choice.ipv6_first = first;
        self
    }

    /// Keeps to the endpoints whose topology hints are for this zone, where all have hints and some are. Default:
    /// hints do not matter.
    #[must_use]
    pub fn with_hint_zone(mut self, zone: impl Into<String>) -> Self {
        self.choice.hint_zone = Some(zone.into());
        self
    }

    /// The same for hints of nodes, which go before those of zones.
    #[must_use]
    pub fn with_hint_node(mut self, node: impl Into<String>) -> Self {
        self.choice.hint_node = Some(node.into());
        self
    }

    /// Sets the TTL of leases: each third of it the labels of the Pod are checked. Nothing ends by itself before
    /// the Pod does. Default 180 s.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets how long a watch may be silent before a list beside it finds out whether it missed something; API servers
    /// say something each minute, unless little happens in the whole cluster. At least 100 ms; default 90 s.
    #[must_use]
    pub fn with_idle(mut self, idle: Duration) -> Self {
        self.idle = idle.max(Duration::from_millis(100));
        self
    }

    /// Sets how many EndpointSlices or Pods of one service are held at most. Default 20,000.
    #[must_use]
    pub fn with_max_instances(mut self, most: usize) -> Self {
        self.most = most.max(1);
        self
    }

    /// Sets who is told of objects that are skipped. Default: [`Tracing`](crate::observe::Tracing).
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    fn afresh(self) -> Self {
        Self { shared: Arc::default(), ..self }
    }

    /// Opens `kubernetes://?KEY=VALUE`.
    pub(crate) fn open(uri: &RegistryUri, observer: &Arc<dyn Observer>) -> Result<Registry> {
        uri.expect_params(&KEYS)?;
        let wrong = |why: String| Error::invalid(format!("{uri:?} is no cluster: {why}"));
        if !uri.authority().is_empty() || !uri.path().is_empty() {
            let why = "nothing stands between kubernetes:// and the service; where the cluster is says the kubeconfig";
            return Err(wrong(why.into()));
        }
        let one_of = |key: &str, values: &[&str]| match uri.param(key) {
            None => Ok(0),
            Some(value) => {
                let at = values.iter().position(|known| *known == value);
                at.ok_or_else(|| wrong(format!("{key} is one of {}, not {value:?}", values.join(", "))))
            }
        };
        let mode = if one_of("mode", &["endpointslices", "pods"])? == 0 { Mode::Slices } else { Mode::Pods };
        let text = |key: &str| uri.param(key).filter(|value| !value.is_empty()).map(str::to_owned);
        let namespace = text("namespace");
        if !namespace.as_deref().is_none_or(is_dns_label) {
            return Err(wrong("the namespace is none".into()));
        }
        let mut kubernetes = Self::in_mode(mode);
        kubernetes.source = Source {
            kubeconfig: text("kubeconfig").map(PathBuf::from),
            context: text("context"),
            plaintext: one_of("plaintext", &["false", "true"])? == 1,
        };
        kubernetes.choice = Choice {
            secure: one_of("scheme", &["grpc", "grpcs"])? == 1,
            ipv6_first: one_of("family", &["ipv4", "ipv6"])? == 1,
            hint_zone: text("hint_zone"),
            hint_node: text("hint_node"),
        };
        (kubernetes.namespace, kubernetes.pod) = (namespace, text("pod"));
        kubernetes.most = max_instances(uri)?;
        kubernetes.ttl = ttl_param(uri)?.unwrap_or(Self::DEFAULT_TTL);
        if let Some(idle) = duration_param(uri, "idle")? {
            if idle < Duration::from_secs(1) {
                return Err(wrong("idle is a time of at least 1s".into()));
            }
            kubernetes.idle = idle;
        }
        Ok(kubernetes.with_observer(observer.clone()).into())
    }

    /// What stands in errors and logs, and tells clusters apart.
    fn name(&self) -> String {
        let kubeconfig = self.source.kubeconfig.as_ref().map(|path| path.display().to_string());
        let mode = (self.mode == Mode::Pods).then(|| "pods".to_owned());
        let parts = [
            ("mode", &mode),
            ("kubeconfig", &kubeconfig),
            ("context", &self.source.context),
            ("namespace", &self.namespace),
        ];
        let parts = parts.iter().filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={value}")));
        let parts: Vec<_> = parts.collect();
        let mark = if parts.is_empty() { "" } else { "?" };
        format!("kubernetes://{mark}{}", parts.join("&"))
    }

    /// A client of a namespace: the one given, or ours.
    async fn client(&self, namespace: Option<&str>) -> Result<Client> {
        let runtime = Handle::current().id();
        let mut held = self.shared.client.lock().await;
        let client = match &*held {
            Some((of, client)) if *of == runtime && !client.is_stranger() => client.clone(),
            _ => {
                let (client, namespace) = connect::client(&self.source).await?;
                held.insert((runtime, Client::new(client, namespace))).1.clone()
            }
        };
        let namespace = namespace.map(str::to_owned).or_else(|| self.namespace.clone());
        let own = || (self.mode == Mode::Pods).then(own_namespace).flatten();
        let namespace = namespace.or_else(own).unwrap_or_else(|| client.namespace.clone());
        if !is_dns_label(&namespace) {
            return Err(Error::invalid(format!("{namespace:?} is no namespace")));
        }
        Ok(client.in_namespace(namespace))
    }

    fn subject(&self, service: &ServiceName) -> Result<Subject> {
        Subject::new(self.mode, service, &self.choice)
    }
}

fn own_namespace() -> Option<String> {
    let set = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let env = std::env::var("POD_NAMESPACE").ok().and_then(set);
    env.or_else(|| std::fs::read_to_string(NAMESPACE_FILE).ok().and_then(set))
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self::new()
    }
}

/// Services can only be asked for; Pods also register.
impl From<Kubernetes> for Registry {
    fn from(kubernetes: Kubernetes) -> Self {
        let name = kubernetes.name();
        match kubernetes.mode {
            Mode::Slices => Self::read_only(name, Arc::new(kubernetes)),
            Mode::Pods => Self::new(name, Arc::new(kubernetes)),
        }
    }
}

impl Discovery for Kubernetes {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let subject = self.subject(service)?;
            let client = self.client(subject.namespace()).await?;
            let (objects, _) = client.list(subject.resource(), &subject.labels(), self.most).await?;
            let mut known = Known::new(subject, self.most);
            known.replace(objects);
            Ok(known.snapshot().0)
        })
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let (kubernetes, service) = (self.clone(), service.clone());
        Watch::driven(|sender| async move {
            match kubernetes.subject(&service) {
                Ok(subject) => Follower::new(kubernetes, service, subject).drive(sender).await,
                Err(error) => {
                    // No time mends a name.
                    sender.send(Update::Unavailable(error));
                    sender.closed().await;
                }
            }
        })
    }
}

#[cfg(fuzzing)]
pub(super) fn read_anything(service: &ServiceName, bytes: &[u8]) {
    let Ok(object) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    for mode in [Mode::Slices, Mode::Pods] {
        let Ok(subject) = subject::Subject::new(mode, service, &slices::Choice::default()) else { continue };
        let mut known = Known::new(subject, 100);
        known.put(object.clone());
        drop(known.snapshot());
    }
}

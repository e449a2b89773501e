//! `file://`: a directory that processes share.

mod boot;
mod directory;
mod ledger;
mod notice;
mod record;
mod watch;

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use self::{
    directory::{Directory, Listing},
    ledger::Ledger,
    notice::Notices,
    record::{LeaseRecord, MAX_TTL, Record},
};
use super::{BoxFuture, Discovery, Lease, Registrar, Registry, Renewal, Snapshot, Watch};
use crate::{
    error::{Error, Result},
    instance::{ServiceInstance, ServiceName},
    observe::{Observer, default_observer},
    target::{RegistryUri, ttl_param},
    util::{rng::Rng, task::blocking},
};

/// A directory that all processes of a machine, or of a shared volume, use as their registry.
///
/// An instance is the file `SERVICE/ID.json`: its JSON as Kratos writes it, and beside that a
/// `lease`. Names from outside are percent-encoded, so none leaves the directory. Files are
/// replaced as a whole; one that is torn, foreign or no file at all is skipped, counted in
/// [`Snapshot::skipped`] and told to the observer once.
///
/// - A lease ends when its owner says so or does not renew it for its TTL. Deleting a file ends
///   nothing before that, so a directory may be lost and written anew under everybody's feet.
/// - A file without a `lease`, as a person writes it, is an instance for as long as it is there.
/// - No clock that can be set matters: a reader takes the time between renewals by its own. Only a
///   first look asks how old a renewal is, and by the time since the machine booted; what another
///   machine wrote is then taken for fresh.
/// - A directory that is missing, or a file system that hangs, is an outage and removes nothing.
///
/// Readers are woken by the system where it can tell of changes, and look once a second anyway.
#[derive(Debug, Clone)]
pub struct File {
    shared: Arc<Shared>,
    ttl: Duration,
    observer: Arc<dyn Observer>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    name: Arc<str>,
    notices: Notices,
    /// One writes at a time: renewals of one process cannot cross, nor pile up where a disk hangs.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// When each service's directory was last swept.
    swept: Mutex<HashMap<ServiceName, Instant>>,
}

/// Sweeps a directory so often at most.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

impl File {
    /// How long a lease lives without a renewal, unless [set](Self::with_ttl).
    pub const DEFAULT_TTL: Duration = Duration::from_secs(15);

    /// The registry in this directory, which is made when a server registers.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let root = directory.into();
        let root = std::path::absolute(&root).unwrap_or(root);
        let shared = Shared {
            name: format!("file://{}", root.display()).into(),
            notices: Notices::default(),
            writing: Arc::default(),
            swept: Mutex::default(),
            root,
        };
        Self { shared: Arc::new(shared), ttl: Self::DEFAULT_TTL, observer: default_observer() }
    }

    /// Sets how long leases made through this handle live without a renewal, at most a day.
    /// Default 15 s.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl.min(MAX_TTL);
        self
    }

    /// Sets who is told of files that are skipped. Default: [`Tracing`](crate::observe::Tracing).
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Opens `file:///DIRECTORY?ttl=15s`.
    pub(crate) fn open(uri: &RegistryUri, observer: &Arc<dyn Observer>) -> Result<Registry> {
        uri.expect_params(&["ttl"])?;
        let wrong =
            |why: &str| Error::invalid(format!("{uri:?} is no directory: {why}; write it as file:///run/services"));
        if !matches!(uri.authority(), "" | "localhost") {
            return Err(wrong(&format!("{:?} stands where a host would", uri.authority())));
        }
        if uri.path().is_empty() {
            return Err(wrong("it has no path"));
        }
        let ttl = ttl_param(uri)?.unwrap_or(Self::DEFAULT_TTL);
        Ok(Self::new(uri.path()).with_ttl(ttl).with_observer(observer.clone()).into())
    }

    fn directory(&self, service: &ServiceName) -> Directory {
        Directory::new(self.shared.root.clone(), service.clone())
    }

    fn is_sweep_due(&self, service: &ServiceName) -> bool {
        let mut swept = self.shared.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // Forgets those whose turn has come, so that the table stays small.
        swept.retain(|_, at| now - *at < SWEEP_EVERY);
        match swept.entry(service.clone()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(now);
                true
            }
        }
    }

    /// Writes off the threads that tasks run on, one at a time.
    async fn write<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let turn = self.shared.writing.clone().lock_owned().await;
        blocking(move || {
            // Kept to the end of the work, also where nobody waits for it any more.
            let _turn = turn;
            work()
        })
        .await
    }
}

impl From<File> for Registry {
    fn from(file: File) -> Self {
        Self::new(file.shared.name.clone(), Arc::new(file))
    }
}

impl Registrar for File {
    fn register<'a>(&'a self, instance: &'a Arc<ServiceInstance>) -> BoxFuture<'a, Result<Lease>> {
        Box::pin(async move {
            let mut random = Rng::from_entropy();
            let token = format!("{:016x}{:016x}", random.next_u64(), random.next_u64());
            let lease = Lease::new(instance.clone(), self.ttl, token);
            let (directory, record) = (self.directory(instance.service()), Record::of(&lease));
            let sweep = self.is_sweep_due(instance.service());
            self.write(move || {
                directory.create()?;
                if sweep {
                    directory.sweep();
                }
                directory.write(&record)
            })
            .await?;
            Ok(lease)
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Renewal>> {
        Box::pin(async move {
            let (directory, own) = (self.directory(lease.service()), Record::of(lease));
            self.write(move || {
                let Some(LeaseRecord { beat, ended: false, .. }) = directory.read_own(&own)? else {
                    return Ok(Renewal::Lost);
                };
                directory.write(&own.beat(beat + 1)).map(|()| Renewal::Kept)
            })
            .await
        })
    }

    fn deregister<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (directory, own) = (self.directory(lease.service()), Record::of(lease));
            self.write(move || match directory.read_own(&own)? {
                Some(LeaseRecord { beat, .. }) => directory.write(&own.beat(beat + 1).ended()),
                None => Ok(()),
            })
            .await
        })
    }
}

impl Discovery for File {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let directory = self.directory(service);
            let listing = blocking(move || directory.list(&mut directory::Known::default())).await?;
            let Listing::Records { records, skipped, .. } = listing else { return Ok(Snapshot::default()) };
            let (mut ledger, at) = (Ledger::default(), Instant::now());
            ledger.take(records, at, boot::now());
            Ok(Snapshot::new(ledger.live(at)).with_skipped(skipped.len()))
        })
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let follower = watch::Follower::new(self.clone(), service.clone());
        Watch::driven(|sender| follower.drive(sender))
    }
}

//! Keeps a discovery going: tries again, keeps what was known, and says that it is stale.

mod disk;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use self::disk::Disk;
use super::{BoxFuture, Discovery, Outage, Snapshot, View, Watch, WatchSender};
use crate::{
    error::{Error, Kind, Result},
    instance::ServiceName,
    observe::{Event, Observer, default_observer},
    util::{
        backoff::{Backoff, BackoffConfig},
        rng::Rng,
    },
};

/// A discovery that never gives up on another one.
///
/// A watch that ended, or panicked, is opened anew after a backoff with jitter. The last set stays
/// meanwhile, marked by [`View::outage`]. With [snapshots on disk](Self::with_snapshots) that holds
/// over a restart of the process too.
///
/// The observer is told once when the registry stops to answer, and once when it does again.
#[derive(Debug, Clone)]
pub struct Resilient {
    upstream: Arc<dyn Discovery>,
    backoff: BackoffConfig,
    patience: Duration,
    observer: Arc<dyn Observer>,
    disk: Option<Arc<Disk>>,
}

impl Resilient {
    /// Keeps a discovery going, with waits of 0 to 1 s at first, and at most 60 s, logging what happens.
    #[must_use]
    pub fn new(upstream: Arc<dyn Discovery>) -> Self {
        Self {
            upstream,
            backoff: BackoffConfig::spread(Duration::from_secs(30)),
            patience: Duration::from_secs(5),
            observer: default_observer(),
            disk: None,
        }
    }

    /// Sets how long to wait before a watch is opened anew. Default: anything up to 1 s at first and up to 60 s in
    /// the end, so that many do not come back at the same moment.
    #[must_use]
    pub fn with_backoff(mut self, backoff: BackoffConfig) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets how long a registry may be silent at first before that counts as an outage. Default 5 s.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets who is told of outages. Default: [`Tracing`](crate::observe::Tracing).
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Keeps in this directory, under the registry's name, the last set with instances of each
    /// service, for a start when the registry does not answer. Default: nowhere.
    ///
    /// What comes from there is always marked by [`View::outage`]. A file that cannot be read or
    /// written is told to the observer and otherwise as good as none.
    #[must_use]
    pub fn with_snapshots(mut self, directory: impl AsRef<Path>, registry: &str) -> Self {
        self.disk = Some(Arc::new(Disk::new(directory.as_ref(), registry)));
        self
    }
}

impl Discovery for Resilient {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        self.upstream.list(service)
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let keeper = Keeper { config: self.clone(), service: service.clone(), unsaved: None };
        Watch::driven(|sender| keeper.drive(sender))
    }
}

/// The task behind one watch.
struct Keeper {
    config: Resilient,
    service: ServiceName,
    /// When the set that is known now will be written to disk.
    unsaved: Option<Instant>,
}

impl Keeper {
    async fn drive(mut self, sender: WatchSender) {
        let mut backoff = Backoff::new(self.config.backoff);
        let mut rng = Rng::from_entropy();
        loop {
            let begun = Instant::now();
            let error = self.follow(&sender).await;
            self.tell(&sender, View::new(None, false, Some(Outage::new(error, Instant::now())))).await;
            // One that always answers and then ends must not be asked ten times a second for ever.
            if begun.elapsed() > self.config.backoff.max {
                backoff.reset();
            }
            sleep(backoff.next(&mut rng)).await;
        }
    }

    /// Passes on what one watch upstream says, until it ends; tells why it did.
    async fn follow(&mut self, sender: &WatchSender) -> Error {
        let watch = catch_unwind(AssertUnwindSafe(|| self.config.upstream.watch(&self.service)));
        let Ok(mut watch) = watch else {
            return Error::new(Kind::Internal, "the registry panicked when it was asked to watch");
        };
        let patience = Instant::now() + self.config.patience;
        let mut heard = false;
        loop {
            let unsaved = self.unsaved;
            tokio::select! {
                view = watch.next() => match view {
                    Some(view) => self.tell(sender, view).await,
                    None => return Error::unavailable("the registry ended the watch"),
                },
                () = sleep_until(patience), if !heard => {
                    let error = Error::unavailable(format!("no answer for {:?}", self.config.patience));
                    self.tell(sender, View::new(None, false, Some(Outage::new(error, patience)))).await;
                }
                () = sleep_until(unsaved.unwrap_or(patience)), if unsaved.is_some() => {
                    self.unsaved = None;
                    self.save(sender.view()).await;
                    continue;
                }
            }
            heard = true;
        }
    }

    async fn tell(&mut self, sender: &WatchSender, mut view: View) {
        let before = sender.view();
        if view.outage().is_some() && view.snapshot().is_none() && before.snapshot().is_none() {
            let outage = view.outage().cloned();
            view = View::new(self.load().await, true, outage);
        } else if view.outage().is_none() && view.snapshot() != before.snapshot() && self.config.disk.is_some() {
            self.unsaved = self.unsaved.or_else(|| Some(Instant::now() + SAVE_AFTER));
        }
        sender.send_view(view.clone());
        match (before.outage(), view.outage()) {
            (None, Some(outage)) => {
                let error = outage.error();
                self.observe(&Event::RegistryUnavailable { service: &self.service, error });
            }
            (Some(outage), None) => {
                let outage = outage.since().elapsed();
                self.observe(&Event::RegistryRecovered { service: &self.service, outage });
            }
            _ => {}
        }
    }

    async fn load(&self) -> Option<Snapshot> {
        let disk = self.config.disk.as_ref()?;
        disk.load(&self.service).await.unwrap_or_else(|error| {
            self.skipped(disk, &error);
            None
        })
    }

    async fn save(&self, view: View) {
        if let (Some(disk), Some(snapshot)) = (&self.config.disk, view.snapshot())
            && !snapshot.instances().is_empty()
            && let Err(error) = disk.save(&self.service, snapshot.clone()).await
        {
            self.skipped(disk, &error);
        }
    }

    fn skipped(&self, disk: &Disk, error: &Error) {
        let record = disk.path(&self.service).display().to_string();
        let (registry, service) = (disk.registry(), &self.service);
        self.observe(&Event::RecordSkipped { registry, service, record: &record, error });
    }

    fn observe(&self, event: &Event<'_>) {
        self.config.observer.on_event(event);
    }
}

/// Many changes are one write.
const SAVE_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

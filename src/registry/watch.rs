//! The stream of what a registry knows of one service.

use std::{
    fmt::Debug,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use tokio::{sync::watch, time::Instant};
use tokio_stream::wrappers::WatchStream;

use crate::{error::Error, instance::ServiceInstance, util::task};

/// All instances of a service at one moment: sorted by id, each id once. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    instances: Arc<[Arc<ServiceInstance>]>,
    revision: u64,
    skipped: usize,
}

impl Snapshot {
    /// A snapshot of these instances; of several with one id the first stays.
    pub fn new(instances: impl IntoIterator<Item = Arc<ServiceInstance>>) -> Self {
        let mut instances: Vec<_> = instances.into_iter().collect();
        instances.sort_by(|a, b| a.id().cmp(b.id()));
        instances.dedup_by(|b, a| a.id() == b.id());
        Self { instances: instances.into(), revision: 0, skipped: 0 }
    }

    /// Sets the registry's own count of changes, where it has one.
    #[must_use]
    pub fn with_revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// Sets how many records were skipped because they are no instances.
    #[must_use]
    pub fn with_skipped(mut self, skipped: usize) -> Self {
        self.skipped = skipped;
        self
    }

    /// The instances, sorted by id.
    pub fn instances(&self) -> &[Arc<ServiceInstance>] {
        &self.instances
    }

    /// The registry's own count of changes; 0 where it has none.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many records were skipped because they are no instances.
    pub fn skipped(&self) -> usize {
        self.skipped
    }
}

/// What a registry has to say: input to a [`WatchSender`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Update {
    /// These are all instances now; none is a set too.
    Instances(Snapshot),
    /// The registry answered that it knows no such service: as good as an empty set.
    NotFound,
    /// The registry does not answer. What it said before stays.
    Unavailable(Error),
}

/// What is known of a service: the last set, and whether the registry answers now.
///
/// An outage removes nothing: both can be there at once.
#[derive(Debug, Clone, Default)]
pub struct View {
    snapshot: Option<Snapshot>,
    found: bool,
    outage: Option<Outage>,
}

impl View {
    /// The last set that the registry gave; none if it never answered.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// Whether the registry answered that it knows no such service.
    pub fn is_not_found(&self) -> bool {
        self.snapshot.is_some() && !self.found
    }

    /// Why the registry does not answer, and since when; none while it does.
    pub fn outage(&self) -> Option<&Outage> {
        self.outage.as_ref()
    }

    /// What several registries know together.
    pub(crate) fn new(snapshot: Option<Snapshot>, found: bool, outage: Option<Outage>) -> Self {
        Self { snapshot, found, outage }
    }

    /// Takes in a view that was made elsewhere: where it knows no set, the one there is stays.
    /// Tells whether that changes anything.
    fn absorb(&mut self, newer: Self) -> bool {
        let before = self.clone();
        if newer.snapshot.is_some() {
            (self.snapshot, self.found) = (newer.snapshot, newer.found);
        }
        let since = |outage: &Outage| before.outage.as_ref().map_or(outage.since, |before| before.since);
        self.outage = newer.outage.map(|outage| Outage { since: since(&outage), ..outage });
        let same = before.found == self.found && before.snapshot == self.snapshot;
        !same || before.outage.is_some() || self.outage.is_some()
    }

    /// Takes in what the registry says; tells whether that changes anything.
    fn apply(&mut self, update: Update, now: Instant) -> bool {
        let (snapshot, found) = match update {
            Update::Instances(snapshot) => (snapshot, true),
            Update::NotFound => (Snapshot::default(), false),
            Update::Unavailable(error) => {
                let since = self.outage.as_ref().map_or(now, |outage| outage.since);
                self.outage = Some(Outage { error, since });
                return true;
            }
        };
        let same = self.outage.is_none() && self.found == found && self.snapshot.as_ref() == Some(&snapshot);
        *self = Self { snapshot: Some(snapshot), found, outage: None };
        !same
    }
}

/// A registry that does not answer.
#[derive(Debug, Clone)]
pub struct Outage {
    error: Error,
    since: Instant,
}

impl Outage {
    pub(crate) fn new(error: Error, since: Instant) -> Self {
        Self { error, since }
    }

    /// The last error.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// When the registry was first found not to answer.
    pub fn since(&self) -> Instant {
        self.since
    }
}

/// Follows the instances of one service.
///
/// The latest [`View`] wins: whoever reads slowly misses what lay between and holds nobody up. As
/// a [`Stream`] it yields the view there is at once, then each later one, and ends only if the
/// registry gave up. Clones each read for themselves; dropping the last one ends the work behind.
///
/// # Cancel safety
///
/// Cancel safe: what was not returned is there the next time.
#[derive(Debug)]
pub struct Watch {
    views: watch::Receiver<View>,
    stream: WatchStream<View>,
    held: Option<Arc<dyn Debug + Send + Sync>>,
}

/// The other end of a [`Watch`].
#[derive(Debug)]
pub struct WatchSender(watch::Sender<View>);

impl Watch {
    /// A watch, and the sender that feeds it.
    pub fn channel() -> (WatchSender, Self) {
        let (sender, views) = watch::channel(View::default());
        (WatchSender(sender), Self { stream: WatchStream::new(views.clone()), views, held: None })
    }

    /// A watch fed by a task of its own, which ends with the watch's last clone.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime.
    pub fn driven<F>(drive: impl FnOnce(WatchSender) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, watch) = Self::channel();
        watch.holding(Arc::new(task::spawn(drive(sender))))
    }

    /// Keeps a value alive for as long as a clone of this watch lives.
    pub(crate) fn holding(self, value: Arc<dyn Debug + Send + Sync>) -> Self {
        Self { held: Some(value), ..self }
    }

    /// What is known now.
    pub fn view(&self) -> View {
        self.views.borrow().clone()
    }

    /// Whether nothing new will come: the registry gave up, or the runtime it worked in is gone.
    pub(crate) fn is_over(&self) -> bool {
        self.views.has_changed().is_err()
    }

    /// Waits for a view that was not returned yet; none once the registry gave up.
    pub async fn next(&mut self) -> Option<View> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Watch {
    type Item = View;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<View>> {
        loop {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                // Nothing was heard yet.
                Some(View { snapshot: None, outage: None, .. }) => {}
                view => return Poll::Ready(view),
            }
        }
    }
}

impl Clone for Watch {
    fn clone(&self) -> Self {
        Self { views: self.views.clone(), stream: WatchStream::new(self.views.clone()), held: self.held.clone() }
    }
}

impl WatchSender {
    /// Tells all watches; what changes nothing is not told.
    pub fn send(&self, update: Update) {
        self.0.send_if_modified(|view| view.apply(update, Instant::now()));
    }

    /// Passes on what another watch knows: its set if it has one, and its outage.
    pub(crate) fn send_view(&self, view: View) {
        self.0.send_if_modified(|own| own.absorb(view));
    }

    /// What the watches know now.
    pub fn view(&self) -> View {
        self.0.borrow().clone()
    }

    /// Waits until nobody watches any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[&str]) -> Update {
        let instance = |id: &&str| Arc::new(ServiceInstance::builder("s", id).and_then(|b| b.build()).expect("valid"));
        Update::Instances(Snapshot::new(ids.iter().map(instance)))
    }

    fn ids(view: &View) -> Vec<&str> {
        view.snapshot().into_iter().flat_map(Snapshot::instances).map(|instance| instance.id().as_str()).collect()
    }

    /// K4: a watcher that did not read held up all others.
    #[tokio::test(start_paused = true)]
    async fn the_latest_view_wins_and_an_outage_removes_nothing() {
        let (sender, mut watch) = Watch::channel();
        sender.send(set(&["a"]));
        sender.send(set(&["b", "a", "b"]));
        sender.send(Update::Unavailable(Error::unavailable("down")));
        let view = watch.next().await.expect("open");
        assert_eq!(ids(&view), ["a", "b"]);
        let since = view.outage().expect("down").since();

        tokio::time::advance(std::time::Duration::from_secs(9)).await;
        sender.send(Update::Unavailable(Error::unavailable("still down")));
        let view = watch.next().await.expect("open");
        assert_eq!(view.outage().map(Outage::since), Some(since), "an outage has one beginning");

        sender.send(set(&["a", "b"]));
        assert!(watch.next().await.expect("open").outage().is_none(), "an answer ends it");
    }

    #[tokio::test]
    async fn none_at_all_is_a_state_and_a_late_clone_sees_it() {
        let (sender, watch) = Watch::channel();
        assert!(watch.view().snapshot().is_none());
        sender.send(Update::NotFound);
        let mut late = watch.clone();
        let view = late.next().await.expect("open");
        assert!(view.is_not_found() && ids(&view).is_empty());
        sender.send(set(&[]));
        assert!(!late.next().await.expect("open").is_not_found());

        sender.send(set(&[]));
        drop(sender);
        assert!(late.next().await.is_none(), "the same set again is no news");
    }

    #[tokio::test]
    async fn the_last_clone_ends_the_task() {
        let (alive, mut ended) = tokio::sync::oneshot::channel::<()>();
        let watch = Watch::driven(|sender| async move {
            sender.send(set(&["a"]));
            sender.closed().await;
            std::future::pending::<()>().await;
            drop(alive);
        });
        let mut clone = watch.clone();
        drop(watch);
        assert_eq!(ids(&clone.next().await.expect("open")), ["a"]);
        assert!(ended.try_recv().is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Empty));
        drop(clone);
        assert!(ended.await.is_err());
    }
}

//! The loop behind one watch.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use super::{
    File, boot,
    directory::{Directory, Known, Listing},
    ledger::Ledger,
};
use crate::{
    error::{Error, Result},
    instance::ServiceName,
    registry::{Snapshot, Update, WatchSender, skips::Skips},
    util::task::blocking,
};

/// Looks so often, whether woken or not; where the system wakes nobody, this is how late a reader is.
const POLL: Duration = Duration::from_secs(1);

/// The same while there is no directory to be told about.
const POLL_MISSING: Duration = Duration::from_millis(200);

/// Many changes at once are one look.
const BETWEEN: Duration = Duration::from_millis(10);

/// A look that takes longer is an outage, until it comes back.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Follower {
    file: File,
    service: ServiceName,
    directory: Directory,
    wake: Arc<Notify>,
    known: Known,
    ledger: Ledger,
    skips: Skips,
    /// Which directory the system watches for us; none while there is none.
    watched: Option<u64>,
    /// Whether the directory was ever there.
    seen: bool,
}

impl Follower {
    pub(super) fn new(file: File, service: ServiceName) -> Self {
        Self {
            directory: file.directory(&service),
            service,
            wake: Arc::default(),
            known: Known::default(),
            ledger: Ledger::default(),
            skips: Skips::new(file.shared.name.clone(), file.observer.clone()),
            watched: None,
            seen: false,
            file,
        }
    }

    pub(super) async fn drive(mut self, sender: WatchSender) {
        loop {
            let begun = Instant::now();
            let listing = self.look(&sender).await;
            let update = self.take(listing);
            sender.send(update);
            let poll = if self.watched.is_some() { POLL } else { POLL_MISSING };
            let ends = self.ledger.next_end(Instant::now());
            let next = ends.map_or(begun + poll, |ends| ends.min(begun + poll)).max(begun + BETWEEN);
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(next) => {}
                () = sender.closed() => return,
            }
            sleep_until(begun + BETWEEN).await;
        }
    }

    /// Reads the directory; says meanwhile if that does not come back.
    async fn look(&mut self, sender: &WatchSender) -> Result<Listing> {
        let (directory, mut known) = (self.directory.clone(), std::mem::take(&mut self.known));
        let (file, wake, watched) = (self.file.clone(), self.wake.clone(), self.watched);
        let mut looking = Box::pin(blocking(move || {
            let mut listing = directory.list(&mut known);
            let identity = match &listing {
                Ok(Listing::Records { identity, .. }) => Some(*identity),
                _ => None,
            };
            if identity != watched || identity.is_none() {
                // Where the directory is missing, the one it will be made in can tell of it.
                let notices = &file.shared.notices;
                notices.subscribe(if identity.is_some() { directory.path() } else { directory.root() }, &wake);
                // What changed before that was told to nobody.
                listing = directory.list(&mut known);
            }
            Ok((listing, identity, known))
        }));
        let looked = loop {
            match timeout(PATIENCE, &mut looking).await {
                Ok(looked) => break looked,
                Err(_) => {
                    self.ledger.interrupt();
                    let context = format!("{} does not answer for {PATIENCE:?}", self.directory.path().display());
                    sender.send(Update::Unavailable(Error::unavailable(context)));
                }
            }
        };
        let (listing, identity, known) = looked?;
        (self.known, self.watched) = (known, identity);
        listing
    }

    fn take(&mut self, listing: Result<Listing>) -> Update {
        let (records, skipped) = match listing {
            Ok(Listing::Records { records, skipped, .. }) => (records, skipped),
            // A directory that was here and is not: nobody takes one away whose service ended.
            Ok(Listing::NoService) if self.seen => {
                self.ledger.interrupt();
                let context = format!("the directory {} is gone", self.directory.path().display());
                return Update::Unavailable(Error::unavailable(context));
            }
            Ok(Listing::NoService) => return Update::NotFound,
            Err(error) => {
                self.ledger.interrupt();
                return Update::Unavailable(error);
            }
        };
        let at = Instant::now();
        self.ledger.take(records, at, boot::now());
        self.skips.tell(&self.service, &skipped);
        self.seen = true;
        Update::Instances(Snapshot::new(self.ledger.live(at)).with_skipped(skipped.len()))
    }
}

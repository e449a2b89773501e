//! Where a channel's endpoints come from: any `Discover`.

use std::{
    collections::HashMap,
    fmt::Display,
    future::Future,
    hash::Hash,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use tokio::time::{Sleep, sleep};
use tower::discover::{Change, Discover};

use crate::{
    endpoint::{Endpoint, EndpointKey},
    error::Error,
    resolver::Resolver,
};

/// A stream of changes that never ends and never fails, and a word on how it is doing.
pub(super) trait Source: Send {
    /// The next change. Pending may also mean that [`missing`](Self::missing) has changed.
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Change<EndpointKey, Endpoint>>;

    /// Why there are no endpoints, if there are none; and whether that is certain rather than
    /// not known yet.
    fn missing(&self) -> (bool, Error);
}

impl Source for Resolver {
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Change<EndpointKey, Endpoint>> {
        match Pin::new(self).poll_next(cx) {
            Poll::Ready(Some(Ok(change))) => Poll::Ready(change),
            _ => Poll::Pending,
        }
    }

    fn missing(&self) -> (bool, Error) {
        (self.state().is_resolved(), self.state().missing())
    }
}

/// Somebody's `Discover`. An error is taken for a passing one, the end for no more changes.
pub(super) struct Discovered<D: Discover> {
    discover: Pin<Box<D>>,
    keys: HashMap<D::Key, EndpointKey>,
    /// How many keys have each endpoint: mostly one.
    held: HashMap<EndpointKey, usize>,
    /// A removal that an insert of the same key brought with it.
    replaced: Option<EndpointKey>,
    pause: Option<Pin<Box<Sleep>>>,
    error: Option<String>,
    heard: bool,
    ended: bool,
}

/// How long to leave a `Discover` alone that failed.
const PAUSE: Duration = Duration::from_secs(1);

impl<D: Discover> Discovered<D> {
    pub(super) fn new(discover: D) -> Self {
        Self {
            discover: Box::pin(discover),
            keys: HashMap::new(),
            held: HashMap::new(),
            replaced: None,
            pause: None,
            error: None,
            heard: false,
            ended: false,
        }
    }

    /// Forgets a key; its endpoint goes when no other key has it.
    fn release(&mut self, key: EndpointKey) -> Option<Change<EndpointKey, Endpoint>> {
        if let Some(others @ 2..) = self.held.get_mut(&key) {
            *others -= 1;
            return None;
        }
        self.held.remove(&key);
        Some(Change::Remove(key))
    }
}

impl<D> Source for Discovered<D>
where
    D: Discover<Service = Endpoint> + Send,
    D::Key: Hash + Eq + Clone + Send,
    D::Error: Display,
{
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Change<EndpointKey, Endpoint>> {
        loop {
            if let Some(change) = self.replaced.take().and_then(|key| self.release(key)) {
                return Poll::Ready(change);
            }
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            if self.ended {
                return Poll::Pending;
            }
            match self.discover.as_mut().poll_discover(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(error))) => {
                    self.error = Some(error.to_string());
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
                Poll::Ready(Some(Ok(Change::Insert(key, endpoint)))) => {
                    (self.heard, self.error) = (true, None);
                    let to = endpoint.key().clone();
                    let before = self.keys.insert(key, to.clone());
                    if before.as_ref() != Some(&to) {
                        *self.held.entry(to.clone()).or_default() += 1;
                    }
                    self.replaced = before.filter(|before| *before != to);
                    return Poll::Ready(Change::Insert(to, endpoint));
                }
                Poll::Ready(Some(Ok(Change::Remove(key)))) => {
                    (self.heard, self.error) = (true, None);
                    let gone = self.keys.remove(&key);
                    if let Some(change) = gone.and_then(|key| self.release(key)) {
                        return Poll::Ready(change);
                    }
                }
            }
        }
    }

    fn missing(&self) -> (bool, Error) {
        let certain = self.heard || self.ended;
        let why = match &self.error {
            Some(error) => format!("discovery fails: {error}"),
            None if certain => "discovery knows no endpoint".to_owned(),
            None => "discovery has not said anything yet".to_owned(),
        };
        (certain, Error::unavailable(why))
    }
}

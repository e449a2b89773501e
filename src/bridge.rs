//! A resolver's endpoints for those who balance by other means: tower's `Balance`, tonic's channel.

use std::{
    collections::HashSet,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use tower::discover::Change;

use crate::{
    channel::{Channel, WhenReady},
    endpoint::{Endpoint, EndpointKey},
    error::Result,
    resolver::Resolver,
};

impl Resolver {
    /// Turns each endpoint into a service of one's own making. The result is a `Discover` again.
    ///
    /// A change of weight or metadata makes no new service, so nobody reconnects. An endpoint that
    /// cannot be made a service is left out.
    pub fn into_services_by<S, F>(self, make: F) -> Services<F>
    where
        F: FnMut(&Endpoint) -> Option<S> + Send,
    {
        Services { resolver: self, make, held: HashSet::new() }
    }

    /// Turns each endpoint into a service that is ready when it is connected, for tower's `Balance`.
    ///
    /// ```
    /// use callsign::{registry, resolver::Resolver};
    /// use tower::{balance::p2c::Balance, load::{CompleteOnResponse, PendingRequestsDiscover}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> callsign::Result<()> {
    /// let greeter = "greeter".parse()?;
    /// let watch = registry("memory://")?.discovery().watch(&greeter);
    /// let services = Resolver::new(greeter, watch).into_services();
    /// let balance = Balance::new(PendingRequestsDiscover::new(services, CompleteOnResponse::default()));
    /// # let _: Balance<_, http::Request<tonic::body::Body>> = balance;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_services(self) -> Services<impl FnMut(&Endpoint) -> Option<WhenReady> + Send> {
        let name = self.service().to_string();
        self.into_services_by(move |endpoint| {
            let channel = Channel::builder(&name).endpoints([endpoint.clone()]).connect_lazy();
            channel.ok().map(Channel::when_ready)
        })
    }
}

/// A `Discover` of services, made of a resolver's endpoints.
#[derive(Debug)]
pub struct Services<F> {
    resolver: Resolver,
    make: F,
    held: HashSet<EndpointKey>,
}

impl<S, F: FnMut(&Endpoint) -> Option<S> + Unpin> Stream for Services<F> {
    type Item = Result<Change<EndpointKey, S>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let this = &mut *self;
            match ready!(Pin::new(&mut this.resolver).poll_next(cx)) {
                None => return Poll::Ready(None),
                Some(Ok(Change::Insert(key, _))) if this.held.contains(&key) => {}
                Some(Ok(Change::Insert(key, endpoint))) => {
                    if let Some(service) = (this.make)(&endpoint) {
                        this.held.insert(key.clone());
                        return Poll::Ready(Some(Ok(Change::Insert(key, service))));
                    }
                }
                Some(Ok(Change::Remove(key))) => {
                    if this.held.remove(&key) {
                        return Poll::Ready(Some(Ok(Change::Remove(key))));
                    }
                }
            }
        }
    }
}

#[cfg(feature = "tonic-channel")]
mod tonic_channel {
    use futures_util::StreamExt;
    use tonic::transport::{self, channel::Change as Tonics};
    use tower::discover::Change;

    use super::{Endpoint, Resolver};
    use crate::util::task;

    /// How many changes wait for a channel that is not polled, at most.
    const CAPACITY: usize = 64;

    impl Resolver {
        /// Feeds tonic's own balanced channel, for those who must keep it. Needs a Tokio runtime.
        ///
        /// What tonic's channel does is its own: it balances without regard to load, counts an
        /// endpoint that cannot be reached as ready, takes in changes only while calls are made,
        /// and lets a call wait without end while there is no endpoint.
        /// [`Channel`](crate::Channel) does none of that.
        pub fn into_tonic_channel(self) -> transport::Channel {
            self.into_tonic_channel_with(|_, tonic| tonic)
        }

        /// The same, with a say in how each endpoint is set up: timeouts, TLS, keepalive.
        pub fn into_tonic_channel_with<F>(self, mut configure: F) -> transport::Channel
        where
            F: FnMut(&Endpoint, transport::Endpoint) -> transport::Endpoint + Send + Unpin + 'static,
        {
            let (channel, changes) = transport::Channel::balance_channel(CAPACITY);
            let mut services = self.into_services_by(move |endpoint| {
                let tonic = transport::Endpoint::from_shared(uri(endpoint)?).ok()?;
                Some(configure(endpoint, tonic))
            });
            // Ends with the channel: then nobody takes its changes any more.
            task::spawn_bounded(async move {
                loop {
                    let change = tokio::select! {
                        Some(Ok(change)) = services.next() => change,
                        () = changes.closed() => return,
                    };
                    let change = match change {
                        Change::Insert(key, endpoint) => Tonics::Insert(key, endpoint),
                        Change::Remove(key) => Tonics::Remove(key),
                    };
                    if changes.send(change).await.is_err() {
                        return;
                    }
                }
            });
            channel
        }
    }

    /// What tonic dials: the first address.
    fn uri(endpoint: &Endpoint) -> Option<String> {
        let address = endpoint.key().addresses().first()?;
        Some(match address.path() {
            Some(path) => format!("unix://{path}"),
            None if address.scheme().is_secure() => format!("https://{}", address.authority()),
            None => format!("http://{}", address.authority()),
        })
    }
}

//! How a call comes to an endpoint: it looks in what is published, and waits if there is none for it.

use std::{sync::Arc, time::Duration};

use http::request::Parts;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::{
    CallOptions,
    call::Calls,
    published::{Published, Ready},
    served::Served,
    transport::Stream,
};
use crate::{
    balance::{Pick, PickInfo},
    error::{Error, Kind},
    load::{CallGuard, LoadCell},
};

/// A picked endpoint, the call counted in, with a stream to it.
pub(super) struct Picked {
    pub(super) served: Served,
    pub(super) guard: CallGuard,
    pub(super) stream: Stream,
}

/// What a look for an endpoint finds.
enum Look {
    Picked(Picked),
    Failed(Status),
    /// Nothing, until something else is published.
    NotReady,
    /// Endpoints, but every stream to them is taken.
    Full,
}

/// So many endpoints are asked for a stream before a call waits for one.
const ASKED: usize = 16;

impl Calls {
    /// Waits until an endpoint is ready, whatever happens.
    pub(super) async fn ready(&self) {
        let look = |published: &Arc<Published>| match **published {
            Published::Ready(_) => Some(()),
            Published::Idle => {
                self.used.wake();
                None
            }
            Published::Waiting(_) | Published::Failing(_) => None,
        };
        self.cell.wait_for(look).await;
    }

    /// An endpoint at once, which is what nearly all calls find; none to wait for one.
    pub(super) fn pick_now(&self, head: &Parts, now: Instant) -> Option<Result<Picked, Status>> {
        match self.look(&self.cell.load(), head, now, None, false) {
            Look::Picked(picked) => Some(Ok(picked)),
            Look::Failed(status) => Some(Err(status)),
            Look::NotReady | Look::Full => None,
        }
    }

    /// Waits for a pick, as long as the call may.
    pub(super) async fn pick(
        &self,
        head: &Parts,
        begun: Instant,
        deadline: Option<Instant>,
        refused: Option<&Arc<LoadCell>>,
    ) -> Result<Picked, Status> {
        let full = match self.look(&self.cell.load(), head, Instant::now(), refused, false) {
            Look::Picked(picked) => return Ok(picked),
            Look::Failed(status) => return Err(status),
            Look::NotReady => false,
            Look::Full => true,
        };
        let patience = (!self.waits_for_ready(head)).then(|| begun + self.patience);
        let picked = self.wait(head, refused, full);
        let Some(until) = [deadline, patience].into_iter().flatten().min() else { return picked.await };
        match timeout_at(until, picked).await {
            Ok(picked) => picked,
            Err(_) => Err(self.waited(until - begun, deadline == Some(until))),
        }
    }

    /// Waits for an endpoint to be ready; and, where it is streams that are missing, in line.
    async fn wait(&self, head: &Parts, refused: Option<&Arc<LoadCell>>, full: bool) -> Result<Picked, Status> {
        let mut place = if full { Some(self.line.join().await) } else { None };
        loop {
            let look =
                |published: &Arc<Published>| match self.look(published, head, Instant::now(), refused, place.is_some())
                {
                    Look::NotReady => None,
                    Look::Full if place.is_some() => None,
                    found => Some(found),
                };
            let found = match &place {
                None => Some(self.cell.wait_for(look).await),
                Some(place) => tokio::select! {
                    biased;
                    found = self.cell.wait_for(look) => Some(found),
                    () = place.freed() => None,
                },
            };
            match found {
                Some(Look::Picked(picked)) => return Ok(picked),
                Some(Look::Failed(status)) => return Err(status),
                Some(Look::Full) => place = Some(self.line.join().await),
                Some(Look::NotReady) | None => {}
            }
        }
    }

    /// Looks in one state for an endpoint with a free stream.
    fn look(
        &self,
        published: &Published,
        head: &Parts,
        now: Instant,
        refused: Option<&Arc<LoadCell>>,
        first_in_line: bool,
    ) -> Look {
        let Ready { picker, nodes, connections, recent } = match published {
            Published::Ready(ready) => ready,
            Published::Waiting(_) => return Look::NotReady,
            Published::Idle => {
                self.used.wake();
                return Look::NotReady;
            }
            Published::Failing(_) if self.waits_for_ready(head) => return Look::NotReady,
            Published::Failing(error) => return Look::Failed(self.failed(error.clone())),
        };
        let mut tried = Vec::new();
        if let Some(refused) = refused.filter(|_| nodes.len() > 1) {
            tried.extend(nodes.iter().position(|node| Arc::ptr_eq(node.load(), refused)));
        }
        let now = now.into_std();
        let mut nothing = Look::NotReady;
        for _ in 0..ASKED {
            let mut info = PickInfo::new(head.uri.path(), &head.headers, now, self.draws.next_u64());
            info.extensions = Some(&head.extensions);
            info.tried = &tried;
            info.recent = recent.get();
            let at = match picker.pick(&info) {
                Pick::At(at) if !tried.contains(&at) => at,
                Pick::At(_) | Pick::Queue => return nothing,
                Pick::Fail(_) if self.waits_for_ready(head) || matches!(nothing, Look::Full) => return nothing,
                Pick::Fail(error) | Pick::Drop(error) => return Look::Failed(self.failed(error)),
            };
            let (Some(node), Some(connections)) = (nodes.get(at), connections.get(at)) else { return nothing };
            if let Some(stream) = connections.open(first_in_line) {
                recent.set(at);
                let served = connections.served().clone();
                return Look::Picked(Picked { served, guard: node.load().start(now), stream });
            }
            tried.push(at);
            nothing = Look::Full;
        }
        nothing
    }

    fn waits_for_ready(&self, head: &Parts) -> bool {
        let options = head.extensions.get::<CallOptions>();
        options.and_then(|options| options.wait_for_ready).unwrap_or(self.wait_for_ready)
    }

    /// The status of a call that waited in vain: for what, and how long.
    fn waited(&self, waited: Duration, deadline: bool) -> Status {
        let kind = if deadline { Kind::DeadlineExceeded } else { Kind::Unavailable };
        let context = format!("waited {waited:.1?} for a ready endpoint");
        self.failed(match &**self.cell.load() {
            Published::Idle => Error::new(kind, context),
            Published::Waiting(why) | Published::Failing(why) => Error::with_source(kind, context, why.clone()),
            Published::Ready(ready) => {
                let ready = ready.nodes.len();
                let why = "the policy picks none, or as many calls are open as the servers allow";
                Error::new(kind, format!("waited {waited:.1?} for a stream to one of {ready} ready endpoints: {why}"))
            }
        })
    }
}

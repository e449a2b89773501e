//! How a call comes to an endpoint: it looks in what is published, and waits if there is none for it.

use std::{sync::Arc, time::Duration};

use http::request::Parts;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::{
    CallOptions,
    call::Calls,
    probe::{Ask, Heard},
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
    /// Endpoints that are to be asked before.
    Ask(Ask),
}

/// What a look is for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    head: &'a Parts,
    /// Who refused the call.
    refused: Option<&'a Arc<LoadCell>>,
    /// Whether the call may have the last free stream.
    first_in_line: bool,
    /// What was heard of those that it asked.
    heard: Option<&'a Heard>,
}

impl<'a> Wanted<'a> {
    fn new(head: &'a Parts, refused: Option<&'a Arc<LoadCell>>) -> Self {
        Self { head, refused, first_in_line: false, heard: None }
    }
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
        match self.look(&self.cell.load(), Wanted::new(head, None), now) {
            Look::Picked(picked) => Some(Ok(picked)),
            Look::Failed(status) => Some(Err(status)),
            Look::NotReady | Look::Full | Look::Ask(_) => None,
        }
    }

    /// Waits for a pick, as long as the call may.
    pub(super) async fn pick(
        self: &Arc<Self>,
        head: &Parts,
        begun: Instant,
        deadline: Option<Instant>,
        refused: Option<&Arc<LoadCell>>,
    ) -> Result<Picked, Status> {
        let wanted = Wanted::new(head, refused);
        let found = match self.look(&self.cell.load(), wanted, Instant::now()) {
            Look::Picked(picked) => return Ok(picked),
            Look::Failed(status) => return Err(status),
            found => found,
        };
        let patience = (!self.waits_for_ready(head)).then(|| begun + self.patience);
        let picked = self.wait(wanted, found);
        let Some(until) = [deadline, patience].into_iter().flatten().min() else { return picked.await };
        match timeout_at(until, picked).await {
            Ok(picked) => picked,
            Err(_) => Err(self.waited(until - begun, deadline == Some(until))),
        }
    }

    /// Waits for an endpoint to be ready; where it is streams that are missing, in line; and for what endpoints say
    /// that the policy asks.
    async fn wait(self: &Arc<Self>, wanted: Wanted<'_>, mut found: Look) -> Result<Picked, Status> {
        let (mut place, mut heard) = (None, None);
        loop {
            match found {
                Look::Picked(picked) => return Ok(picked),
                Look::Failed(status) => return Err(status),
                Look::Full if place.is_none() => place = Some(self.line.join().await),
                Look::Ask(ask) => heard = Some(ask.run(self).await),
                Look::Full | Look::NotReady => {}
            }
            let wanted = Wanted { first_in_line: place.is_some(), heard: heard.as_ref(), ..wanted };
            let look = |published: &Arc<Published>| match self.look(published, wanted, Instant::now()) {
                Look::NotReady => None,
                Look::Full if place.is_some() => None,
                found => Some(found),
            };
            found = match &place {
                None => self.cell.wait_for(look).await,
                Some(place) => tokio::select! {
                    biased;
                    found = self.cell.wait_for(look) => found,
                    () = place.freed() => Look::NotReady,
                },
            };
        }
    }

    /// Looks in one state for an endpoint with a free stream.
    fn look(&self, published: &Arc<Published>, wanted: Wanted<'_>, now: Instant) -> Look {
        let Wanted { head, refused, first_in_line, heard } = wanted;
        let Ready { picker, connections, recent } = match &**published {
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
        if let Some(refused) = refused.filter(|_| connections.len() > 1) {
            tried.extend(connections.iter().position(|one| Arc::ptr_eq(one.served().node().load(), refused)));
        }
        let now = now.into_std();
        let mut nothing = Look::NotReady;
        let mut random = heard.map_or_else(|| self.draws.next_u64(), Heard::random);
        for _ in 0..ASKED {
            let mut info = PickInfo::new(head.uri.path(), &head.headers, now, random);
            info.extensions = Some(&head.extensions);
            info.tried = &tried;
            info.recent = recent.get();
            info.probed = heard.map(|heard| heard.probed(published));
            let at = match picker.pick(&info) {
                Pick::At(at) if !tried.contains(&at) => at,
                Pick::Probe(probes) if heard.is_none() => {
                    return Look::Ask(Ask { published: published.clone(), probes, random });
                }
                Pick::At(_) | Pick::Queue | Pick::Probe(_) => return nothing,
                Pick::Fail(_) if self.waits_for_ready(head) || matches!(nothing, Look::Full) => return nothing,
                Pick::Fail(error) | Pick::Drop(error) => return Look::Failed(self.failed(error)),
            };
            let Some(connections) = connections.get(at) else { return nothing };
            if let Some(stream) = connections.open(first_in_line) {
                recent.set(at);
                let served = connections.served().clone();
                let guard = served.node().load().start(now);
                return Look::Picked(Picked { served, guard, stream });
            }
            tried.push(at);
            nothing = Look::Full;
            random = self.draws.next_u64();
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
                let ready = ready.connections.len();
                let why = "the policy picks none, or as many calls are open as the servers allow";
                Error::new(kind, format!("waited {waited:.1?} for a stream to one of {ready} ready endpoints: {why}"))
            }
        })
    }
}

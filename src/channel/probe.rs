//! Asks endpoints how busy they are before a call is sent to one of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::uri::PathAndQuery;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tonic::{Code, Status, client::Grpc};

use super::{call::Calls, direct::Direct, published::Published, served::Served};
use crate::{
    balance::{Probed, Probes},
    load::BriefReport,
    report::{ANNOUNCES, PROBE, brief},
    util::{raw::Raw, task},
};

/// What a policy wants to know before it chooses.
pub(super) struct Ask {
    /// Positions are in this state.
    pub(super) published: Arc<Published>,
    pub(super) probes: Probes,
    /// The picker is asked with the same random number again.
    pub(super) random: u64,
}

/// What came of it.
pub(super) struct Heard {
    ask: Ask,
    answered: Vec<usize>,
    first: Duration,
    waited: Duration,
}

impl Heard {
    pub(super) fn random(&self) -> u64 {
        self.ask.random
    }

    /// For a picker of this state: it may be another one by now.
    pub(super) fn probed(&self, published: &Arc<Published>) -> Probed<'_> {
        if Arc::ptr_eq(published, &self.ask.published) {
            return Probed::new(self.ask.probes.at(), &self.answered, self.first).waited(self.waited);
        }
        Probed::default()
    }
}

impl Ask {
    /// Waits for all of them, as long as the policy wants to.
    pub(super) async fn run(self, calls: &Arc<Calls>) -> Heard {
        let begun = Instant::now();
        let until = begun + self.probes.wait();
        let (mut answered, mut first) = (Vec::new(), None);
        if let Published::Ready(ready) = &*self.published {
            let ask = |at: &usize| {
                let connections = ready.connections.get(*at)?;
                let (served, connection) = (connections.served().clone(), connections.nearest()?.clone());
                Some((*at, Probing::ask(Direct { calls: calls.clone(), served, connection }, self.probes.announced())))
            };
            let asked = self.probes.at().iter().filter_map(ask);
            let mut told: FuturesUnordered<_> = asked
                .map(|(at, mut told)| async move { (told.changed().await.is_ok() && *told.borrow()).then_some(at) })
                .collect();
            while let Ok(Some(told)) = timeout_at(until, told.next()).await {
                if let Some(at) = told {
                    first.get_or_insert_with(|| begun.elapsed());
                    answered.push(at);
                }
            }
        }
        let waited = begun.elapsed();
        Heard { ask: self, answered, first: first.unwrap_or(waited), waited }
    }
}

/// Of one endpoint: the probe that is under way, if one is, and who waits for its end.
///
/// Most endpoints are never asked, so one that is not has nothing but room for a pointer.
#[derive(Debug, Default)]
pub(super) struct Probing(Mutex<Option<watch::Sender<bool>>>);

/// For so long a probe stays open. Calls do not wait for it, and meanwhile there is no other.
const LONGEST: Duration = Duration::from_secs(10);

impl Probing {
    /// Asks a server, unless it is asked already; tells when it has answered, or will not.
    fn ask(direct: Direct, announced: Duration) -> watch::Receiver<bool> {
        let mut under_way = direct.served.probing().open();
        if let Some(answered) = &*under_way {
            return answered.subscribe();
        }
        let (answered, told) = watch::channel(false);
        *under_way = Some(answered);
        drop(under_way);
        // Here already, as the task may end before it has begun.
        let open = Open { served: direct.served.clone(), answered: false };
        task::spawn_bounded(async move {
            // Whole: a closure takes single fields otherwise.
            let mut open = open;
            open.answered = matches!(timeout(LONGEST, probe(direct, announced)).await, Ok(Ok(())));
        });
        told
    }

    fn open(&self) -> MutexGuard<'_, Option<watch::Sender<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A probe under way; tells how it ended when it is dropped, whatever the reason.
struct Open {
    served: Served,
    answered: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        let under_way = self.served.probing().open().take();
        if let Some(answered) = under_way {
            answered.send_replace(self.answered);
        }
    }
}

/// Asks a server, and keeps what it says.
async fn probe(direct: Direct, announced: Duration) -> Result<(), Status> {
    let served = direct.served.clone();
    let load = served.node().load();
    let report = ask(direct, announced).await.inspect_err(|status| {
        if status.code() == Code::Unimplemented {
            load.refuse_probes();
        }
    })?;
    load.report(&report, Instant::now().into_std());
    Ok(())
}

async fn ask(direct: Direct, announced: Duration) -> Result<BriefReport, Status> {
    let mut grpc = Grpc::new(direct).max_decoding_message_size(64 << 10);
    grpc.ready().await?;
    let mut asked = tonic::Request::new(Vec::new());
    asked.set_timeout(LONGEST);
    if !announced.is_zero() {
        asked.metadata_mut().insert(ANNOUNCES, (announced.as_micros() as u64).into());
    }
    let said = grpc.server_streaming(asked, PathAndQuery::from_static(PROBE), Raw).await?;
    let (head, mut messages, _) = said.into_parts();
    if let Some(report) = brief(&head.into_headers()) {
        return Ok(report);
    }
    // A server may send an empty answer in parts.
    if messages.message().await?.is_some() {
        return Err(Status::internal("the answer to a probe has no message"));
    }
    let trailers = messages.trailers().await?.unwrap_or_default().into_headers();
    brief(&trailers).ok_or_else(|| Status::internal("the answer to a probe says nothing"))
}

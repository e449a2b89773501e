//! Requests and answers, no policy.

use std::{future::ready, time::Duration};

use futures_util::stream;
use tokio::{
    sync::mpsc,
    time::{error::Elapsed, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    cluster::{Cluster, Failure, MAX_MESSAGE, Token, is_token_refused},
    codec::range_end,
    proto::etcdserverpb::{
        Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest,
        RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, WatchCreateRequest, WatchProgressRequest,
        WatchRequest, WatchResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        kv_client::KvClient,
        lease_client::LeaseClient,
        request_op,
        watch_client::WatchClient,
        watch_request::RequestUnion,
    },
    records::Records,
};
use crate::error::Error;

/// So many keys are asked for at once; fewer where their values are large.
const PAGE: i64 = 512;

/// How long one try of a list may take.
const LIST_WITHIN: Duration = Duration::from_secs(3);

/// How long a member may take to begin a watch.
const OPEN_WITHIN: Duration = Duration::from_secs(4);

/// The moment at which something was so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Moment {
    pub(super) revision: i64,
    /// The election that the leader of that moment won.
    pub(super) term: u64,
}

impl From<Option<ResponseHeader>> for Moment {
    fn from(header: Option<ResponseHeader>) -> Self {
        header.map_or_else(Self::default, |header| Self { revision: header.revision, term: header.raft_term })
    }
}

impl Cluster {
    /// Takes all keys of a service into its records, as they were at one moment.
    pub(super) async fn list(&self, records: &mut Records) -> Result<Moment, Failure> {
        let (mut key, mut at, mut page) = (records.prefix().as_bytes().to_vec(), Moment::default(), PAGE);
        let mut keys = 0;
        loop {
            let end = range_end(records.prefix());
            let revision = at.revision;
            let range = RangeRequest { key: key.clone(), range_end: end, limit: page, revision, keys_only: false };
            let answer = match self.range(range, LIST_WITHIN).await {
                // Longer than this takes in: fewer at once.
                Err(failure) if failure.is(Code::OutOfRange) && failure.says("message length") && page > 1 => {
                    page = (page / 8).max(1);
                    continue;
                }
                answer => answer?,
            };
            if at.revision == 0 {
                at = answer.header.into();
            }
            let read = answer.kvs.len();
            for kv in &answer.kvs {
                records.put(&kv.key, &kv.value);
            }
            keys += read;
            let Some(last) = answer.kvs.last().filter(|_| answer.more) else { return Ok(at) };
            if keys >= records.most() {
                records.count_beyond(usize::try_from(answer.count).unwrap_or_default().saturating_sub(read));
                return Ok(at);
            }
            key = [&last.key[..], &[0]].concat();
        }
    }

    async fn range(&self, range: RangeRequest, within: Duration) -> Result<RangeResponse, Failure> {
        self.call(within, range, |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(MAX_MESSAGE).range(request).await
        })
        .await
    }

    /// The lease that a key hangs on; none if there is no such key.
    pub(super) async fn lease_of(&self, key: String, within: Duration) -> Result<Option<i64>, Failure> {
        let range = RangeRequest { key: key.into_bytes(), limit: 1, keys_only: true, ..RangeRequest::default() };
        Ok(self.range(range, within).await?.kvs.first().map(|kv| kv.lease))
    }

    /// Makes a lease under an id of our choosing, so that a try whose answer was lost can be made again; tells its
    /// TTL in seconds.
    pub(super) async fn grant(&self, id: i64, ttl: i64, within: Duration) -> Result<i64, Failure> {
        let grant = LeaseGrantRequest { ttl, id };
        let granted =
            self.call(
                within,
                grant,
                |channel, request| async move { LeaseClient::new(channel).lease_grant(request).await },
            );
        match granted.await {
            Ok(granted) => Ok(granted.ttl),
            Err(failure) if failure.says("lease already exists") => self.keep_alive(id, within).await,
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn put(&self, key: &str, value: String, lease: i64, within: Duration) -> Result<(), Failure> {
        let put = PutRequest { key: key.as_bytes().to_vec(), value: value.into_bytes(), lease };
        self.call(within, put, |channel, request| async move { KvClient::new(channel).put(request).await })
            .await
            .map(drop)
    }

    /// Prolongs a lease; tells its TTL in seconds, 0 or less if there is none.
    pub(super) async fn keep_alive(&self, id: i64, within: Duration) -> Result<i64, Failure> {
        let beat = |channel, request: Request<LeaseKeepAliveRequest>| async move {
            let (metadata, extensions, beat) = request.into_parts();
            let request = Request::from_parts(metadata, extensions, stream::once(ready(beat)));
            let mut answers = LeaseClient::new(channel).lease_keep_alive(request).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(Response::new).ok_or_else(|| Status::unavailable("the beat of a lease was not answered"))
        };
        Ok(self.call(within, LeaseKeepAliveRequest { id }, beat).await?.ttl)
    }

    /// Ends a lease, and with it its keys, in one step.
    pub(super) async fn revoke(&self, id: i64, within: Duration) -> Result<(), Failure> {
        let revoked = self.call(within, LeaseRevokeRequest { id }, |channel, request| async move {
            LeaseClient::new(channel).lease_revoke(request).await
        });
        match revoked.await {
            Err(failure) if !failure.is(Code::NotFound) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Deletes a key if it hangs on this lease.
    pub(super) async fn delete_of(&self, key: String, lease: i64, within: Duration) -> Result<(), Failure> {
        let key = key.into_bytes();
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Lease.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::Lease(lease)),
        };
        let delete = request_op::Request::RequestDeleteRange(DeleteRangeRequest { key, range_end: Vec::new() });
        let delete = RequestOp { request: Some(delete) };
        let txn = TxnRequest { compare: vec![compare], success: vec![delete], failure: Vec::new() };
        self.call(within, txn, |channel, request| async move { KvClient::new(channel).txn(request).await })
            .await
            .map(drop)
    }

    /// Watches a prefix from a revision on, that revision's own events included.
    ///
    /// It is the last one known, not the one after: a member does not answer for its progress before it has reached
    /// the revision asked for.
    pub(super) async fn watch(&self, prefix: &str, revision: i64) -> Result<Events, Failure> {
        let create = WatchCreateRequest {
            key: prefix.as_bytes().to_vec(),
            range_end: range_end(prefix),
            start_revision: revision,
            progress_notify: true,
            fragment: true,
        };
        let (requests, queue) = mpsc::channel(4);
        drop(requests.try_send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }));
        let opening = self.open(ReceiverStream::new(queue), |channel, request| async move {
            WatchClient::new(channel).max_decoding_message_size(MAX_MESSAGE).watch(request).await
        });
        let late = |_: Elapsed| {
            Error::unavailable(format!("{}: no member began a watch within {OPEN_WITHIN:?}", self.config().name))
        };
        timeout(OPEN_WITHIN, async {
            let (answers, token) = opening.await?;
            let mut events = Events { requests, answers, token, began: Moment::default() };
            let first = events.next(self).await?;
            events.began = first.header.into();
            Ok(events)
        })
        .await
        .map_err(late)?
    }
}

/// A watch at one member.
#[derive(Debug)]
pub(super) struct Events {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    token: Token,
    began: Moment,
}

impl Events {
    /// How far the member was when the watch began.
    pub(super) fn began(&self) -> Moment {
        self.began
    }

    /// Asks the member how far it is.
    pub(super) fn ask_progress(&self) {
        let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
        drop(self.requests.try_send(WatchRequest { request_union: Some(request) }));
    }

    /// The next answer; one that ends the watch without a compaction is a failure.
    pub(super) async fn next(&mut self, cluster: &Cluster) -> Result<WatchResponse, Failure> {
        let answer = self.answers.message().await.map_err(Failure::Status)?;
        let answer =
            answer.ok_or_else(|| Failure::Status(Status::unavailable("the member ended the watch without a word")))?;
        if answer.canceled && answer.compact_revision == 0 {
            let reason = &answer.cancel_reason;
            let denied = reason.contains("permission denied");
            let code = if denied { Code::PermissionDenied } else { Code::Unavailable };
            let status = Status::new(code, format!("the watch was cancelled: {reason}"));
            if is_token_refused(&status) {
                cluster.forget(&self.token).await;
            }
            return Err(Failure::Status(status));
        }
        Ok(answer)
    }
}

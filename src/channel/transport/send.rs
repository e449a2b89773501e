//! One request on one connection: its frames are queued by the caller's own future.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, SendStream, client::ResponseFuture};
use http::{Request, Response};
use http_body::Body as _;
use tonic::{Status, body::Body};

use super::{
    connection::{Stream, Unsent},
    error::{Failure, describe},
};
use crate::error::{Error, Kind};

/// A request's body, with a memory of what was sent of it: for as long as that is not much, the
/// request can be sent once more.
#[derive(Debug, Default)]
pub(in crate::channel) struct Outgoing {
    body: Body,
    /// Read from the body, not sent; `after` only behind `next`.
    next: Option<Bytes>,
    after: Option<Bytes>,
    ended: bool,
    sent: Sent,
    /// How many of the chunks sent this attempt has sent again.
    replayed: usize,
}

/// The chunks that were sent; that of a unary call is the only one, and needs no list.
#[derive(Debug, Default)]
struct Sent {
    first: Option<Bytes>,
    others: Vec<Bytes>,
    bytes: usize,
}

impl Sent {
    fn len(&self) -> usize {
        self.others.len() + usize::from(self.first.is_some())
    }

    fn get(&self, at: usize) -> Option<&Bytes> {
        if at == 0 { self.first.as_ref() } else { self.others.get(at - 1) }
    }

    /// Remembers one more, or forgets all, since they are too much.
    fn push(&mut self, chunk: &Bytes) {
        self.bytes = self.bytes.saturating_add(chunk.len());
        if !self.is_whole() {
            (self.first, self.others) = (None, Vec::new());
        } else if self.first.is_none() {
            self.first = Some(chunk.clone());
        } else {
            self.others.push(chunk.clone());
        }
    }

    fn is_whole(&self) -> bool {
        self.bytes <= MAX_REPLAY
    }
}

/// What a call may keep of its request to send it again
/// ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#memory-management-buffering)).
const MAX_REPLAY: usize = 256 * 1024;

/// A chunk of no more is copied: it may be a small part of a large buffer, as of the 8 KiB that tonic's codec begins with,
/// which serves the next call while it is warm, instead of waiting with this one to be sent, or sent again.
const SMALL: usize = 1024;

/// So large are the blocks that small chunks are copied to, one behind the other: one allocation for many, and no more
/// than this is kept by a call that lasts.
const BLOCK: usize = 4096;

thread_local! {
    /// What is free of the block that this thread fills.
    static FREE: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(BLOCK));
}

fn compact(chunk: Bytes) -> Bytes {
    if chunk.len() > SMALL {
        return chunk;
    }
    FREE.with_borrow_mut(|free| {
        // Goes on in a block of the same size where this one is full, or in this one once nobody holds a part of it.
        free.extend_from_slice(&chunk);
        free.split().freeze()
    })
}

impl Outgoing {
    pub(in crate::channel) fn new(body: Body) -> Self {
        let ended = body.is_end_stream();
        Self { body, next: None, after: None, ended, sent: Sent::default(), replayed: 0 }
    }

    /// Goes back to the beginning; false if too much was sent to remember.
    pub(in crate::channel) fn rewind(&mut self) -> bool {
        self.replayed = 0;
        self.sent.is_whole()
    }

    /// Sends the rest on its own: the call has its answer's head, and this is never sent again.
    pub(in crate::channel) async fn pump(mut self, mut stream: SendStream<Bytes>) {
        self.sent.bytes = usize::MAX;
        // What is wrong with the body has reset the stream, and shows in the response.
        let _ = poll_fn(|cx| poll_send(&mut stream, &mut self, cx)).await;
    }

    fn is_empty(&self) -> bool {
        self.ended && self.next.is_none() && self.sent.len() == 0
    }

    /// Whether the chunk to send next is the last one; none at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<bool>, Status>> {
        if self.replayed < self.sent.len() {
            let last = self.ended && self.next.is_none() && self.replayed + 1 == self.sent.len();
            return Poll::Ready(Ok(Some(last)));
        }
        if self.next.is_none() {
            self.next = ready!(self.poll_body(cx))?;
        }
        // One look ahead: END_STREAM rides on the last chunk instead of on a frame of its own.
        if self.next.is_some()
            && self.after.is_none()
            && let Poll::Ready(after) = self.poll_body(cx)
        {
            self.after = after?;
        }
        let last = self.ended && self.after.is_none();
        Poll::Ready(Ok(self.next.is_some().then_some(last)))
    }

    /// That chunk, which is sent now.
    fn take_next(&mut self) -> Bytes {
        let again = self.sent.get(self.replayed).cloned();
        let chunk = again.unwrap_or_else(|| {
            let chunk = mem::replace(&mut self.next, self.after.take()).unwrap_or_default();
            self.sent.push(&chunk);
            chunk
        });
        self.replayed = self.sent.len().min(self.replayed + 1);
        chunk
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        while !self.ended {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && data.has_remaining()
                    {
                        return Poll::Ready(Ok(Some(compact(data))));
                    }
                }
                Some(Err(status)) => return Poll::Ready(Err(status)),
                None => {
                    self.ended = true;
                    // It holds what is left of the buffer that the message was written into.
                    self.body = Body::default();
                }
            }
        }
        Poll::Ready(Ok(None))
    }
}

/// A request under way.
#[derive(Debug)]
pub(in crate::channel) struct Exchange {
    response: ResponseFuture,
    /// None when all is sent, or the server wants no more.
    request: Option<SendStream<Bytes>>,
}

impl Exchange {
    /// Queues the request's head, and as much of its body as there is.
    pub(in crate::channel) fn start(on: &Stream, head: Request<()>, body: &Outgoing) -> Result<Self, Failure> {
        let empty = body.is_empty();
        let Unsent { error, is_over, is_held_back } = match on.send(head, empty) {
            Ok((response, stream)) => return Ok(Self { response, request: (!empty).then_some(stream) }),
            Err(unsent) => unsent,
        };
        if error.is_io() || error.is_go_away() || error.is_reset() {
            on.retire();
            return Err(Failure::Unseen(describe(error, on)));
        }
        let kind = if is_over || is_held_back { Kind::Unavailable } else { Kind::Internal };
        let error = Error::with_source(kind, "HTTP/2 cannot carry this request", error);
        if is_over {
            // It has run out of stream ids.
            on.retire();
        }
        // What remains is our own fault.
        Err(if kind == Kind::Unavailable { Failure::Unseen(error) } else { Failure::Failed(error) })
    }

    /// Sends what there is of the body and looks for the response's head.
    pub(in crate::channel) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        on: &Stream,
        body: &mut Outgoing,
    ) -> Poll<Result<Response<h2::RecvStream>, Failure>> {
        if let Some(stream) = &mut self.request
            && let Poll::Ready(sent) = poll_send(stream, body, cx)
        {
            self.request = None;
            sent?;
        }
        Pin::new(&mut self.response).poll(cx).map_err(|error| Failure::of_stream(error, on))
    }

    /// The request's stream, if there is more to send on it.
    pub(in crate::channel) fn take_request(&mut self) -> Option<SendStream<Bytes>> {
        self.request.take()
    }
}

/// Sends the body until it ends, it has nothing now, or the server's window is full.
///
/// # Errors
///
/// Only for what is wrong with the body itself: that a stream or a connection ended shows in the
/// response.
fn poll_send(stream: &mut SendStream<Bytes>, body: &mut Outgoing, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
    loop {
        let next = match ready!(body.poll_next(cx)) {
            Ok(next) => next,
            Err(status) => {
                stream.send_reset(Reason::CANCEL);
                return Poll::Ready(Err(Failure::Request(status)));
            }
        };
        let Some(last) = next else {
            let _ = stream.send_data(Bytes::new(), true);
            return Poll::Ready(Ok(()));
        };
        // The last chunk needs no window: it waits inside h2, where it costs nothing more.
        if !last && !ready!(poll_window(stream, cx)) {
            return Poll::Ready(Ok(()));
        }
        if stream.send_data(body.take_next(), last).is_err() || last {
            return Poll::Ready(Ok(()));
        }
    }
}

/// Waits until the server takes more; false if it never will.
fn poll_window(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<bool> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(false),
        }
    }
    Poll::Ready(true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::Full;

    use super::*;

    /// A codec's buffer, of which a message is a part.
    struct Buffer(Arc<Vec<u8>>);

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn a_small_message_does_not_hold_the_buffer_that_it_was_written_into() {
        for (size, held) in [(100, false), (SMALL, false), (SMALL + 1, true)] {
            let alive = Arc::new(vec![7; 8192]);
            let buffer = Bytes::from_owner(Buffer(alive.clone()));
            let mut body = Outgoing::new(Body::new(Full::new(buffer.slice(..size))));
            drop(buffer);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(matches!(body.poll_next(&mut cx), Poll::Ready(Ok(Some(true)))));
            let chunk = body.take_next();
            assert!(chunk.len() == size && chunk.iter().all(|byte| *byte == 7));
            assert_eq!(Arc::strong_count(&alive) > 1, held, "{size}");
            // And it can be sent again.
            assert!(body.rewind());
            assert!(matches!(body.poll_next(&mut cx), Poll::Ready(Ok(Some(true)))));
            assert_eq!(body.take_next(), chunk);
            assert!(matches!(body.poll_next(&mut cx), Poll::Ready(Ok(None))));
        }
    }
}

//! The response's body: it carries the call's bookkeeping to the trailers.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};
use tonic::{Code, Status};

use super::{
    connection::Stream,
    error::{describe, late},
    head::has_status,
};
use crate::{
    channel::served::Served,
    load::{CallGuard, Outcome},
    report::brief,
    util::task::Task,
};

/// Streams what the server sends; dropping it before the end resets the stream.
#[derive(Debug)]
pub(in crate::channel) struct ResponseBody {
    recv: RecvStream,
    data_ended: bool,
    served: Served,
    /// None once the call has ended.
    call: Option<InFlight>,
}

/// What lives as long as the call.
#[derive(Debug)]
pub(in crate::channel) struct InFlight {
    pub(in crate::channel) guard: CallGuard,
    pub(in crate::channel) deadline: Option<Pin<Box<Sleep>>>,
    /// Sends the rest of the request; its drop takes the request back.
    pub(in crate::channel) _pump: Option<Task>,
    /// Keeps the connection of a removed endpoint alive to the call's end, and its place on it.
    pub(in crate::channel) stream: Stream,
}

impl ResponseBody {
    /// The head of the response is here.
    pub(in crate::channel) fn new(recv: RecvStream, headers: &HeaderMap, served: Served, call: InFlight) -> Self {
        let mut body = Self { data_ended: recv.is_end_stream(), recv, served, call: Some(call) };
        if body.data_ended {
            // By its status: failing at once is not being fast.
            body.ended(headers);
        } else if let Some(call) = &mut body.call {
            call.guard.answered(Instant::now().into_std());
        }
        body
    }

    /// The server said all, in these trailers or in a head that is all there is.
    fn ended(&mut self, trailers: &HeaderMap) {
        if let (Some(report), Some(call)) = (brief(trailers), &self.call) {
            call.guard.report(&report, Instant::now().into_std());
        }
        self.finish(outcome(trailers));
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(call) = self.call.take() {
            match outcome {
                Outcome::Success => call.guard.succeed(),
                other => call.guard.finish(other, Instant::now().into_std()),
            }
        }
    }

    fn broken(&mut self, error: h2::Error) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let error = self.call.as_ref().map(|call| {
            let error = describe(error, &call.stream);
            let passed = call.deadline.as_ref().is_some_and(|deadline| deadline.deadline() <= Instant::now());
            if passed { late(error) } else { error }
        });
        let status = error.map(|error| self.served.failed(error));
        status.map_or(Poll::Ready(None), |status| self.fail(status))
    }

    fn fail(&mut self, status: Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.finish(if status.code() == Code::DeadlineExceeded { Outcome::Late } else { Outcome::Failure });
        Poll::Ready(Some(Err(status)))
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.data_ended {
            match self.recv.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(data))) => {
                    // The window opens as the application reads: a slow reader stalls itself alone.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(error))) => return self.broken(error),
                Poll::Ready(None) => self.data_ended = true,
            }
        }
        match self.recv.poll_trailers(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(Some(trailers))) if has_status(&trailers) => {
                self.ended(&trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            // What came may be but a part of what was meant.
            Poll::Ready(Ok(_)) => {
                let status = self.served.status(Code::Unknown, "the server ended the call without a status");
                self.fail(status)
            }
            Poll::Ready(Err(error)) => self.broken(error),
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.call.as_mut().and_then(|call| call.deadline.as_mut());
        deadline.map_or(Poll::Pending, |deadline| deadline.as_mut().poll(cx))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.call.is_none() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = self.poll_recv(cx) {
            return Poll::Ready(frame);
        }
        match self.poll_deadline(cx) {
            Poll::Ready(()) => {
                let status = self.served.deadline_exceeded();
                self.fail(status)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.call.is_none()
    }
}

/// Whom to blame, by the status in these headers or trailers.
fn outcome(headers: &HeaderMap) -> Outcome {
    let code = headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse::<i32>().ok());
    match code.map(Code::from_i32) {
        None | Some(Code::Unavailable) => Outcome::Failure,
        Some(Code::Internal | Code::Unknown | Code::DataLoss) => Outcome::Fault,
        Some(Code::ResourceExhausted) => Outcome::Overload,
        // It was told the deadline, and may be the first to say that it passed.
        Some(Code::DeadlineExceeded) => Outcome::Late,
        Some(_) => Outcome::Success,
    }
}

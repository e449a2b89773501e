//! A connection that the server can cut.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A stream that breaks when it is cut, whoever drives it: tonic's tasks outlive its server's future.
pub(super) struct Connection {
    stream: TcpStream,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Cuts all connections made by it when it is dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct Knife(watch::Sender<()>);

impl Knife {
    pub(super) fn connection(&self, stream: TcpStream) -> Connection {
        let mut knife = self.0.subscribe();
        Connection { stream, cut: Box::pin(async move { while knife.changed().await.is_ok() {} }) }
    }
}

impl Connection {
    /// What waits for the peer waits for the knife too.
    fn or_cut<T>(&mut self, done: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if done.is_pending() && self.cut.as_mut().poll(cx).is_ready() {
            // The future is over: it must not be polled again.
            self.cut = Box::pin(async {});
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has ended")));
        }
        done
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.or_cut(done, cx)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.or_cut(done, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.or_cut(done, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

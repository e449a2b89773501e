//! Reads ahead where much comes: for a frame of 16 KiB h2 asks twice, and for a record of TLS rustls asks five times.

use std::{
    cell::Cell,
    future::Future,
    io, mem,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::write_through::write_through;

/// What is read at once, once a peer has more to say than fits one read: four of HTTP/2's frames, or TLS's records.
const BLOCK: usize = 64 << 10;

thread_local! {
    /// A block for whoever of this thread needs one next: hardly any outlives the look at its stream.
    static SPARE: Cell<BytesMut> = Cell::default();
}

/// A byte stream that is read in blocks while much comes. At rest it holds no memory, and what is
/// small is read as it was asked for.
#[derive(Debug)]
pub(crate) struct Ahead<S> {
    io: S,
    /// Read and not asked for yet.
    block: BytesMut,
    /// Whether the read before was full.
    more: bool,
}

impl<S> Ahead<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io, block: BytesMut::new(), more: false }
    }

    fn give_back(&mut self) {
        SPARE.set(mem::take(&mut self.block));
    }

    /// The stream below.
    #[cfg(all(feature = "server", feature = "tls"))]
    pub(crate) fn get_ref(&self) -> &S {
        &self.io
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.block.is_empty() && !this.more {
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            this.more = buf.remaining() == 0;
            return Poll::Ready(Ok(()));
        }
        if this.block.is_empty() {
            this.block = SPARE.take();
            this.block.reserve(BLOCK);
            match pin!(this.io.read_buf(&mut this.block)).poll(cx) {
                Poll::Ready(read) => this.more = read? >= BLOCK / 2,
                Poll::Pending => {
                    this.more = false;
                    this.give_back();
                    return Poll::Pending;
                }
            }
        }
        let much = buf.remaining().min(this.block.len());
        buf.put_slice(&this.block[..much]);
        this.block.advance(much);
        if this.block.is_empty() {
            this.give_back();
        }
        Poll::Ready(Ok(()))
    }
}

write_through!(Ahead<S>);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// What came in pieces; it tells how often it was asked.
    #[derive(Default)]
    struct Pieces {
        pieces: VecDeque<Vec<u8>>,
        reads: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.reads += 1;
            let Some(mut piece) = self.pieces.pop_front() else { return Poll::Pending };
            let rest = piece.split_off(piece.len().min(buf.remaining()));
            buf.put_slice(&piece);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
            Poll::Ready(Ok(()))
        }
    }

    /// Reads as rustls does, until there is nothing more.
    fn drain(ahead: &mut Ahead<Pieces>) -> Vec<u8> {
        let (mut all, mut some) = (Vec::new(), [0; 4096]);
        loop {
            let mut buf = ReadBuf::new(&mut some);
            match Pin::new(&mut *ahead).poll_read(&mut Context::from_waker(std::task::Waker::noop()), &mut buf) {
                Poll::Ready(read) => read.expect("it does not fail"),
                Poll::Pending => return all,
            }
            all.extend_from_slice(buf.filled());
        }
    }

    #[test]
    fn reads_much_in_blocks_and_holds_nothing_at_rest() {
        let much: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
        let mut ahead = Ahead::new(Pieces { pieces: [much.clone()].into(), reads: 0 });
        assert!(drain(&mut ahead) == much, "not what was sent");
        assert!(ahead.io.reads <= 20, "{} reads", ahead.io.reads);
        assert_eq!(ahead.block.capacity(), 0);
        // What is small takes no block.
        ahead.io = Pieces { pieces: (0..50).map(|_| vec![7; 100]).collect(), reads: 0 };
        assert_eq!(drain(&mut ahead), [7; 5000]);
        assert_eq!((ahead.io.reads, ahead.block.capacity()), (51, 0));
    }

    #[test]
    fn pieces_of_any_length_come_whole_and_in_order() {
        let mut rng = crate::util::rng::Rng::seeded(7);
        let mut below = |most: u64| (rng.next_u64() % most) as usize;
        for _ in 0..200 {
            let pieces: VecDeque<Vec<u8>> = (0..below(20))
                .map(|_| {
                    let most = if below(2) == 0 { 200_000 } else { 5_000 };
                    let length = 1 + below(most);
                    vec![below(256) as u8; length]
                })
                .collect();
            let all = pieces.iter().flatten().copied().collect::<Vec<u8>>();
            let mut ahead = Ahead::new(Pieces { pieces, reads: 0 });
            assert!(drain(&mut ahead) == all, "not what was sent");
            assert_eq!(ahead.block.capacity(), 0);
        }
    }
}

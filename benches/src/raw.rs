//! Calls without generated code: bytes as they are, on any channel, or on HTTP/2 itself.

use std::error::Error;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{Request, uri::PathAndQuery};
use tonic::{
    Status,
    body::Body,
    client::{Grpc, GrpcService},
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// What a call fails with.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// One kind of call: how large a message is sent, and how often it comes back.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Shape {
    /// Bytes of a message, at least 12.
    pub bytes: usize,
    /// How many messages answer.
    pub replies: u32,
}

impl Shape {
    /// A call of this shape.
    #[must_use]
    pub fn new(bytes: usize, replies: u32) -> Self {
        Self { bytes, replies }
    }

    /// What its messages are cut from.
    #[must_use]
    pub fn messages(self) -> Messages {
        let mut block = BytesMut::with_capacity((STEPS + 1) * STEP + self.bytes);
        let mut random = 1_u64;
        for _ in 0..block.capacity() / STEP {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            block.put_u32(self.replies);
            block.put_u64(random);
            block.put_u32((random >> 7) as u32);
        }
        // A clone, so that it is shared from now on: what is cut off costs no allocation.
        let block = block.freeze();
        Messages { _held: block.clone(), block, bytes: self.bytes }
    }
}

/// Messages of one shape: each begins with how often it shall come back, and then they differ.
#[derive(Debug, Clone)]
pub struct Messages {
    block: Bytes,
    _held: Bytes,
    bytes: usize,
}

const STEP: usize = 16;
const STEPS: usize = 4_096;

impl Messages {
    /// The message of a call, like none of the 4,095 before.
    #[must_use]
    pub fn get(&self, number: usize) -> Bytes {
        let from = number % STEPS * STEP;
        self.block.slice(from..from + self.bytes)
    }
}

/// Bytes in, bytes out, through buffers of tonic's default size or a smaller one to begin with.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Raw {
    small: bool,
}

impl Raw {
    /// A codec whose buffers begin with 256 bytes, and grow.
    #[must_use]
    pub fn small() -> Self {
        Self { small: true }
    }

    fn settings(self) -> BufferSettings {
        if self.small { BufferSettings::new(256, 32 << 10) } else { BufferSettings::default() }
    }
}

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(item.len());
        to.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.settings()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.settings()
    }
}

const PATH: PathAndQuery = PathAndQuery::from_static("/echo.v1.Echo/Call");

/// One call on a channel, as generated code makes it; each reply is checked.
///
/// # Errors
///
/// Whatever the call fails with, or that a reply is not what was sent.
pub async fn on_channel<C>(channel: C, codec: Raw, shape: Shape, message: Bytes) -> Result<(), BoxError>
where
    C: GrpcService<Body>,
    C::Error: Into<BoxError>,
    C::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    <C::ResponseBody as tonic::codegen::Body>::Error: Into<BoxError> + Send,
{
    let mut grpc = Grpc::new(channel).max_decoding_message_size(64 << 20);
    grpc.ready().await.map_err(Into::into)?;
    let request = tonic::Request::new(message.clone());
    if shape.replies == 1 {
        let reply = grpc.unary(request, PATH, codec).await?.into_inner();
        return check(reply == message);
    }
    let mut replies = grpc.server_streaming(request, PATH, codec).await?.into_inner();
    let mut count = 0;
    while let Some(reply) = replies.message().await? {
        check(reply == message)?;
        count += 1;
    }
    check(count == shape.replies)
}

fn check(right: bool) -> Result<(), BoxError> {
    if right { Ok(()) } else { Err("a reply is not what was sent".into()) }
}

/// The request of a call on HTTP/2 itself, its head as tonic makes it.
///
/// # Errors
///
/// If the authority is none.
pub fn request<B>(authority: &str, body: B) -> Result<Request<B>, BoxError> {
    let request = Request::post(format!("http://{authority}{PATH}"))
        .version(http::Version::HTTP_2)
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("user-agent", "bare/1")
        .body(body)?;
    Ok(request)
}

/// A message in gRPC's framing.
#[must_use]
pub fn framed(message: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

/// Checks a reply as its pieces come.
#[derive(Debug)]
pub struct Replies {
    want: Bytes,
    seen: BytesMut,
    left: u32,
}

impl Replies {
    /// Wants this framed message so often.
    #[must_use]
    pub fn new(want: Bytes, replies: u32) -> Self {
        Self { want, seen: BytesMut::new(), left: replies }
    }

    /// Takes in a piece.
    ///
    /// # Errors
    ///
    /// If it is not what was sent.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), BoxError> {
        if self.seen.is_empty() && piece == self.want {
            self.left = self.left.checked_sub(1).ok_or("too many replies")?;
            return Ok(());
        }
        self.seen.extend_from_slice(piece);
        while self.seen.len() >= self.want.len() {
            check(self.seen[..self.want.len()] == self.want)?;
            self.seen.advance(self.want.len());
            self.left = self.left.checked_sub(1).ok_or("too many replies")?;
        }
        Ok(())
    }

    /// Ends the reply.
    ///
    /// # Errors
    ///
    /// If something is missing.
    pub fn end(&self) -> Result<(), BoxError> {
        check(self.left == 0 && self.seen.is_empty())
    }
}

/// One call on h2 itself: the least that a client could do.
///
/// # Errors
///
/// Whatever the connection fails with, or that a reply is not what was sent.
pub async fn on_h2(
    connection: &h2::client::SendRequest<Bytes>,
    authority: &str,
    shape: Shape,
    message: Bytes,
) -> Result<(), BoxError> {
    let mut ready = connection.clone().ready().await?;
    let (response, mut send) = ready.send_request(request(authority, ())?, false)?;
    let frame = framed(&message);
    let mut replies = Replies::new(frame.clone(), shape.replies);
    send.send_data(frame, true)?;
    let mut body = response.await?.into_body();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        replies.take(&data)?;
    }
    body.trailers().await?;
    replies.end()
}

/// One call on hyper itself, its body encoded beforehand.
///
/// # Errors
///
/// Whatever the connection fails with, or that a reply is not what was sent.
pub async fn on_hyper(
    connection: &hyper::client::conn::http2::SendRequest<http_body_util::Full<Bytes>>,
    authority: &str,
    shape: Shape,
    message: Bytes,
) -> Result<(), BoxError> {
    use http_body_util::BodyExt;
    let frame = framed(&message);
    let mut replies = Replies::new(frame.clone(), shape.replies);
    let request = request(authority, http_body_util::Full::new(frame))?;
    let mut body = connection.clone().send_request(request).await?.into_body();
    while let Some(piece) = body.frame().await {
        if let Ok(data) = piece?.into_data() {
            replies.take(&data)?;
        }
    }
    replies.end()
}

//! A server on bare frames, for what no library would send.

use callsign::testing::net::MemIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

pub fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut frame = ((length << 8) | u32::from(kind)).to_be_bytes().to_vec();
    frame.push(flags);
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A connection whose preface has been read and whose SETTINGS were sent.
pub struct Raw(pub MemIo);

impl Raw {
    pub async fn accept(mut io: MemIo) -> std::io::Result<Self> {
        io.read_exact(&mut [0; 24]).await?;
        io.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        Ok(Self(io))
    }

    /// The next frame: kind, flags, stream, payload.
    pub async fn read(&mut self) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if head[3] == SETTINGS && head[4] & ACK == 0 {
            self.write(SETTINGS, ACK, 0, &[]).await?;
        }
        Ok((head[3], head[4], id, payload))
    }

    /// The stream of the next call, its HEADERS read.
    pub async fn call(&mut self) -> std::io::Result<u32> {
        loop {
            if let (HEADERS, _, id, _) = self.read().await? {
                return Ok(id);
            }
        }
    }

    pub async fn write(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> std::io::Result<()> {
        self.0.write_all(&frame(kind, flags, id, payload)).await
    }
}

/// Answers the first PING with GOAWAY, ENHANCE_YOUR_CALM, too_many_pings, and hangs up.
pub async fn cut_on_ping(io: MemIo) {
    let Ok(mut raw) = Raw::accept(io).await else { return };
    while let Ok((kind, flags, ..)) = raw.read().await {
        if kind == PING && flags & ACK == 0 {
            let calm = [&[0, 0, 0, 0, 0, 0, 0, 0xb][..], b"too_many_pings"].concat();
            let _ = raw.write(GOAWAY, 0, 0, &calm).await;
            return;
        }
    }
}

//! HTTP/2 by hand: frames that no client library would send.

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::{
    HANG,
    bridge::Bridge,
    client::{Http, Sender, TlsStream},
    sending::{self, HalfClose},
};

/// Frame types and flags (RFC 9113, section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Error codes (RFC 9113, section 7).
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a GOAWAY or a RST_STREAM.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The header block of a POST to `/`, by HPACK's static table (RFC 7541, appendix A).
pub fn post() -> Vec<u8> {
    let mut block = vec![0x83, 0x87, 0x84, 0x01, 9];
    block.extend(b"localhost");
    block
}

/// A header whose name and value stand as they are.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    assert!(name.len() < 127 && value.len() < 127);
    let mut field = vec![0x00, name.len() as u8];
    field.extend(name.as_bytes());
    field.push(value.len() as u8);
    field.extend(value.as_bytes());
    field
}

pub struct Writer(WriteHalf<TlsStream>);
pub struct Reader(ReadHalf<TlsStream>);

/// A connection on which the preface and our settings are sent.
pub async fn open(bridge: &Bridge, settings: &[(u16, u32)]) -> (Writer, Reader) {
    open_as(&bridge.sender(Http::Two), settings).await
}

/// The same with the certificate of this sender.
pub async fn open_as(sender: &Sender, settings: &[(u16, u32)]) -> (Writer, Reader) {
    let (reader, writer) = tokio::io::split(sender.connect().await.unwrap());
    let mut writer = Writer(writer);
    let settings = settings.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &settings.collect::<Vec<_>>()));
    assert!(writer.write(&bytes).await);
    (writer, Reader(reader))
}

impl Writer {
    /// False once the server has closed the connection.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok() && self.0.flush().await.is_ok()
    }
}

/// Nothing more is written; what comes is still read.
pub async fn half_close(writer: Writer, reader: Reader, how: HalfClose) -> Reader {
    let mut stream = reader.0.unsplit(writer.0);
    sending::half_close(&mut stream, how).await;
    Reader(tokio::io::split(stream).0)
}

impl Reader {
    /// The next frame; none when the server has closed the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        tokio::time::timeout(HANG, self.read()).await.expect("a frame, or the end")
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// All frames until the server closes the connection.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}

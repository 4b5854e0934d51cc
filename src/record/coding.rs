//! Decodes a body's content codings (RFC 9110, section 8.4.1), within limits.

use std::{borrow::Cow, io::Read};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status, bufread::MultiGzDecoder};

/// The largest number of codings, one over the other.
const CODINGS_MAX: usize = 2;

/// A decoded body may be at most this many times as large as the encoded one. No event compresses so well; a sender of
/// such a body is after our memory.
const RATIO_MAX: usize = 200;

/// The size in bytes that every decoded body may have, however small the encoded one.
const ALWAYS_BYTES: usize = 64 * 1024;

/// The size in bytes of the first buffer.
const FIRST_BYTES: usize = 16 * 1024;

/// Why a body cannot be decoded. The text shows nothing of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The codings are unknown, or too many.
    #[error("its content-encoding is none of gzip, deflate and br, or more than {CODINGS_MAX} of them")]
    Coding,
    /// The body is not encoded as its header says, or not whole.
    #[error("it is not what its content-encoding says, or not whole")]
    Broken,
    /// The decoded body would be over this limit in bytes.
    #[error("decoded it is over the limit of {max} bytes")]
    TooLarge { max: usize },
}

/// Removes the codings that `content-encoding` lists. A body that already is JSON stays as it is, whatever the header
/// says: some senders name the character set there.
///
/// # Errors
/// [`Undecodable`]: the body cannot be decoded, or not within `bytes_max`.
pub fn decode<'a>(body: &'a [u8], codings: Option<&[u8]>, bytes_max: usize) -> Result<Cow<'a, [u8]>, Undecodable> {
    let Some(codings) = codings else { return Ok(Cow::Borrowed(body)) };
    if body.trim_ascii_start().first() == Some(&b'{') {
        return Ok(Cow::Borrowed(body));
    }
    let max = bytes_max.min(body.len().saturating_mul(RATIO_MAX).max(ALWAYS_BYTES));
    let listed = codings.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let listed: Vec<_> =
        listed.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")).collect();
    if listed.len() > CODINGS_MAX {
        return Err(Undecodable::Coding);
    }
    let mut decoded = Cow::Borrowed(body);
    // The header lists the codings in the order of their application: the last one is removed first.
    for coding in listed.iter().rev() {
        decoded = Cow::Owned(without(&decoded, &coding.to_ascii_lowercase(), max)?);
    }
    Ok(decoded)
}

fn without(bytes: &[u8], coding: &[u8], max: usize) -> Result<Vec<u8>, Undecodable> {
    match coding {
        b"gzip" | b"x-gzip" => gunzip(bytes, max),
        // Some senders have always sent deflate without the zlib frame that it should have (section 8.4.1.2).
        b"deflate" => match inflate(bytes, true, max) {
            Err(Undecodable::Broken) => inflate(bytes, false, max),
            inflated => inflated,
        },
        b"br" => unbrotli(bytes, max),
        _ => Err(Undecodable::Coding),
    }
}

fn gunzip(bytes: &[u8], max: usize) -> Result<Vec<u8>, Undecodable> {
    let mut decoded = Vec::new();
    let limited = MultiGzDecoder::new(bytes).take(max as u64 + 1).read_to_end(&mut decoded);
    limited.map_err(|_| Undecodable::Broken)?;
    if decoded.len() > max { Err(Undecodable::TooLarge { max }) } else { Ok(decoded) }
}

fn inflate(bytes: &[u8], framed: bool, max: usize) -> Result<Vec<u8>, Undecodable> {
    let mut state = Decompress::new(framed);
    let mut decoded = Vec::new();
    loop {
        decoded.reserve(more(decoded.len(), max)?);
        let read = usize::try_from(state.total_in()).unwrap_or(usize::MAX);
        let before = (state.total_in(), state.total_out());
        let rest = bytes.get(read..).unwrap_or_default();
        let status = state.decompress_vec(rest, &mut decoded, FlushDecompress::None);
        match status.map_err(|_| Undecodable::Broken)? {
            Status::StreamEnd if decoded.len() > max => return Err(Undecodable::TooLarge { max }),
            Status::StreamEnd if state.total_in() == bytes.len() as u64 => return Ok(decoded),
            Status::Ok | Status::BufError if (state.total_in(), state.total_out()) != before => {}
            Status::StreamEnd | Status::Ok | Status::BufError => return Err(Undecodable::Broken),
        }
    }
}

fn unbrotli(bytes: &[u8], max: usize) -> Result<Vec<u8>, Undecodable> {
    let mut state = BrotliState::new(StandardAlloc::default(), StandardAlloc::default(), StandardAlloc::default());
    let (mut left, mut read, mut total) = (bytes.len(), 0, 0);
    let mut decoded = Vec::new();
    let mut end = 0;
    loop {
        let mut room = more(end, max)?;
        decoded.resize(end + room, 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut read,
            bytes,
            &mut room,
            &mut end,
            &mut decoded,
            &mut total,
            &mut state,
        );
        match result {
            BrotliResult::ResultSuccess if end > max => return Err(Undecodable::TooLarge { max }),
            BrotliResult::ResultSuccess if left == 0 => {
                decoded.truncate(end);
                return Ok(decoded);
            }
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess | BrotliResult::NeedsMoreInput | BrotliResult::ResultFailure => {
                return Err(Undecodable::Broken);
            }
        }
    }
}

/// The room in bytes for the next part: it doubles each time, up to one byte over the limit, which shows an excess.
fn more(decoded: usize, max: usize) -> Result<usize, Undecodable> {
    let left = (max + 1).saturating_sub(decoded);
    if left == 0 { Err(Undecodable::TooLarge { max }) } else { Ok(left.min(decoded.max(FIRST_BYTES))) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use super::*;

    const EVENT: &[u8] = br#"["an event"]"#;
    /// [`EVENT`] encoded by Google's brotli; `BROTLI_BOMB` is 4 MiB of spaces.
    const BR: &[u8] = &[0x8B, 0x05, 0x80, 0x5B, 0x22, 0x61, 0x6E, 0x20, 0x65, 0x76, 0x65, 0x6E, 0x74, 0x22, 0x5D, 0x03];
    const BROTLI_BOMB: &[u8] = &[0x9B, 0xFF, 0xFF, 0x3F, 0xF8, 0x25, 0x40, 0xE2, 0xB1, 0x40, 0x20, 0xF7, 0xFE, 0x07];
    const MAX: usize = 1024 * 1024;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::best());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut out = ZlibEncoder::new(Vec::new(), Compression::best());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut out = DeflateEncoder::new(Vec::new(), Compression::best());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn every_coding_is_undone() {
        for (codings, body) in [
            ("gzip", gzip(EVENT)),
            ("GZip ", gzip(EVENT)),
            ("x-gzip", gzip(EVENT)),
            ("gzip", [gzip(&EVENT[..5]), gzip(&EVENT[5..])].concat()),
            ("deflate", zlib(EVENT)),
            ("deflate", deflate(EVENT)),
            ("br", BR.to_vec()),
            ("br, gzip", gzip(BR)),
            ("identity,,gzip", gzip(EVENT)),
            ("identity", EVENT.to_vec()),
        ] {
            assert_eq!(decode(&body, Some(codings.as_bytes()), MAX).as_deref(), Ok(EVENT), "{codings}");
        }
        assert_eq!(decode(EVENT, None, MAX).as_deref(), Ok(EVENT));
        let json = br#" {"a":1}"#;
        for codings in ["gzip", "utf-8"] {
            assert_eq!(decode(json, Some(codings.as_bytes()), MAX).as_deref(), Ok(&json[..]), "{codings}");
        }
    }

    #[test]
    fn what_is_not_whole_or_has_more_behind_it_is_broken() {
        for (coding, body) in
            [("gzip", gzip(EVENT)), ("deflate", zlib(EVENT)), ("deflate", deflate(EVENT)), ("br", BR.to_vec())]
        {
            let decoded = |body: &[u8]| decode(body, Some(coding.as_bytes()), MAX).map(Cow::into_owned);
            for cut in 0..body.len() {
                assert_eq!(decoded(&body[..cut]), Err(Undecodable::Broken), "{coding}, {cut} of {}", body.len());
            }
            assert_eq!(decoded(&[&body[..], b"x"].concat()), Err(Undecodable::Broken), "{coding}");
        }
        assert_eq!(decode(EVENT, Some(b"zstd"), MAX), Err(Undecodable::Coding));
        assert_eq!(decode(EVENT, Some(b"gzip,gzip,gzip"), MAX), Err(Undecodable::Coding));
    }

    #[test]
    fn what_becomes_too_large_is_refused_before_it_is_there() {
        let many = vec![b' '; 4 * MAX];
        for (coding, body) in
            [("gzip", gzip(&many)), ("deflate", zlib(&many)), ("deflate", deflate(&many)), ("br", BROTLI_BOMB.to_vec())]
        {
            let max = MAX.min((body.len() * RATIO_MAX).max(ALWAYS_BYTES));
            let decoded = |max| decode(&body, Some(coding.as_bytes()), max);
            assert_eq!(decoded(MAX), Err(Undecodable::TooLarge { max }), "{coding}");
            assert_eq!(decoded(100), Err(Undecodable::TooLarge { max: 100 }), "{coding}");
        }
        let fits = vec![b' '; ALWAYS_BYTES];
        assert_eq!(decode(&gzip(&fits), Some(b"gzip"), MAX).map(|body| body.len()), Ok(ALWAYS_BYTES));
        assert_eq!(
            decode(&gzip(&fits), Some(b"gzip"), ALWAYS_BYTES - 1),
            Err(Undecodable::TooLarge { max: ALWAYS_BYTES - 1 })
        );
    }
}

//! The one call of librdkafka that rdkafka offers no safe way to: it sets a token for SASL/OAUTHBEARER.
//!
//! rdkafka 0.39 asks for a token only when a client is polled, which its `AdminClient` never is, and it cannot send the
//! extensions that some brokers want beside the token.

#![allow(unsafe_code, reason = "rdkafka has no safe function that gives a client its token")]

use std::ffi::{CStr, CString, c_char};

use rdkafka::{ClientContext, bindings::rd_kafka_oauthbearer_set_token, client::Client, types::RDKafkaRespErr};

use super::token::Token;

/// Long enough for every reason that librdkafka gives here, in bytes.
const REASON_BYTES_MAX: usize = 512;

/// Gives the client a token for each later handshake. Its connections that waited for a token begin their handshakes.
///
/// # Errors
/// librdkafka's reason for not taking the token.
pub(super) fn set_token<C: ClientContext>(
    client: &Client<C>,
    token: &Token,
    extensions: &[(String, String)],
) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|_| "it holds a zero byte".to_owned());
    let (value, principal) = (text(token.value())?, text(&token.principal)?);
    let pairs = extensions.iter().flat_map(|(name, value)| [name, value]);
    let pairs = pairs.map(|word| text(word)).collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<*const c_char> = pairs.iter().map(|word| word.as_ptr()).collect();
    let mut reason: [c_char; REASON_BYTES_MAX] = [0; REASON_BYTES_MAX];
    // SAFETY: the client lives for as long as it is borrowed, and so does every string; librdkafka copies what it keeps
    // before it returns, reads as many pointers as it is told, and ends its reason with a zero within the length that
    // it is told.
    let (code, reason) = unsafe {
        let code = rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.ends_ms,
            principal.as_ptr(),
            pointers.as_mut_ptr(),
            pointers.len(),
            reason.as_mut_ptr(),
            reason.len(),
        );
        (code, CStr::from_ptr(reason.as_ptr()))
    };
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        _ => Err(reason.to_string_lossy().into_owned()),
    }
}

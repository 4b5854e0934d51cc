//! The fault of a body that simd-json refused, in words. This path is cold, so it reads the body once more.

use serde::de::IgnoredAny;
use simd_json::ErrorType;

use super::Unreadable;

/// Names the fault. simd-json guesses at some faults, and for most strings gives no place. The text shows nothing of
/// the payload.
pub(super) fn reason(error: &simd_json::Error, body: &[u8]) -> Unreadable {
    if let Err(error) = str::from_utf8(body) {
        return Unreadable::NotUtf8 { at: error.valid_up_to() };
    }
    // `IgnoredAny` keeps nothing and takes no stack for nested levels.
    match serde_json::from_slice::<IgnoredAny>(body) {
        Err(fault) => Unreadable::Json { what: grammar(&fault), at: Some(place(&fault, body)) },
        Ok(IgnoredAny) => {
            Unreadable::Json { what: meaning(error.error()), at: Some(error.index()).filter(|at| *at > 0) }
        }
    }
}

const CONTROL: &str = "a control character stands in a string";

/// Translates serde_json's words, which it has only as text, into ours.
fn grammar(fault: &serde_json::Error) -> &'static str {
    if fault.is_eof() {
        return "the end is missing";
    }
    let text = fault.to_string();
    match text.split(" at line ").next().unwrap_or_default() {
        "expected value" => "a value is expected",
        "expected ident" => "true, false or null is expected",
        "expected `:`" => "a colon is expected",
        "expected `,` or `]`" => "a comma or the array's end is expected",
        "expected `,` or `}`" => "a comma or the object's end is expected",
        "key must be a string" => "a member's name is expected",
        "trailing characters" => "something stands behind the document",
        "invalid number" => "a number is malformed",
        "invalid escape" => "an escape is malformed",
        text if text.starts_with("control character") => CONTROL,
        _ => "it is malformed",
    }
}

/// Names a fault that the grammar allows, but that no Unicode text or 64 bits can hold.
fn meaning(kind: &ErrorType) -> &'static str {
    match kind {
        ErrorType::InvalidNumber => "a number is beyond 64 bits",
        ErrorType::InvalidUnicodeCodepoint | ErrorType::InvalidUnicodeEscape | ErrorType::InvalidEscape => {
            "an escape is no character"
        }
        _ => "it cannot be read",
    }
}

/// The position of the fault in bytes; the body's length where more should follow.
fn place(fault: &serde_json::Error, body: &[u8]) -> usize {
    if fault.is_eof() {
        return body.len();
    }
    let lines = body.split_inclusive(|byte| *byte == b'\n').take(fault.line().saturating_sub(1));
    let line_start: usize = lines.map(<[u8]>::len).sum();
    // serde_json's column is one past the wrong byte, except for a control character, where it is the byte itself.
    (line_start + fault.column()).saturating_sub(usize::from(grammar(fault) != CONTROL))
}

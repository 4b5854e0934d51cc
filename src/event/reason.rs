//! What is wrong with a body that simd-json refused, in words. A cold path: the body is read once more.

use serde::de::IgnoredAny;
use simd_json::ErrorType;

use super::Unreadable;

/// simd-json tells some faults by a guess of what was meant, and most strings' without their place. Of the payload nothing
/// is shown.
pub(super) fn reason(error: &simd_json::Error, body: &[u8]) -> Unreadable {
    if let Err(error) = str::from_utf8(body) {
        return Unreadable::NotUtf8 { at: error.valid_up_to() };
    }
    // Only looked through: nothing of it is kept, and no level of it takes stack.
    match serde_json::from_slice::<IgnoredAny>(body) {
        Err(fault) => Unreadable::Json { what: grammar(&fault), at: Some(place(&fault, body)) },
        Ok(IgnoredAny) => {
            Unreadable::Json { what: meaning(error.error()), at: Some(error.index()).filter(|at| *at > 0) }
        }
    }
}

const CONTROL: &str = "a control character stands in a string";

/// serde_json's words, which are its own alone, in ours.
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

/// What the grammar allows, and no Unicode text or 64 bits can hold.
fn meaning(kind: &ErrorType) -> &'static str {
    match kind {
        ErrorType::InvalidNumber => "a number is beyond 64 bits",
        ErrorType::InvalidUnicodeCodepoint | ErrorType::InvalidUnicodeEscape | ErrorType::InvalidEscape => {
            "an escape is no character"
        }
        _ => "it cannot be read",
    }
}

/// The byte at which the fault is; the body's end, where more should follow.
fn place(fault: &serde_json::Error, body: &[u8]) -> usize {
    if fault.is_eof() {
        return body.len();
    }
    let lines = body.split_inclusive(|byte| *byte == b'\n').take(fault.line().saturating_sub(1));
    let line_start: usize = lines.map(<[u8]>::len).sum();
    // Its place is behind the last byte that was looked at, which is the wrong one; but it stands before a control character.
    (line_start + fault.column()).saturating_sub(usize::from(grammar(fault) != CONTROL))
}

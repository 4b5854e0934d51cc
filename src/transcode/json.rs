//! A part of the tape -> its JSON text.

use simd_json::{Node, StaticNode};

use crate::event::{elements, members};

/// Appends the compact JSON text of the value at `at`: members in their order, each number as the shortest text that
/// reads back equal.
pub fn write_json(tape: &[Node<'_>], at: usize, out: &mut Vec<u8>) {
    match tape.get(at) {
        None | Some(Node::Static(StaticNode::Null)) => out.extend_from_slice(b"null"),
        Some(Node::Static(StaticNode::Bool(boolean))) => write_scalar(boolean, out),
        Some(Node::Static(StaticNode::I64(number))) => write_scalar(number, out),
        Some(Node::Static(StaticNode::U64(number))) => write_scalar(number, out),
        Some(Node::Static(StaticNode::F64(number))) => write_scalar(number, out),
        Some(Node::String(text)) => write_scalar(text, out),
        Some(Node::Object { .. }) => {
            out.push(b'{');
            for (position, (key, value)) in members(tape, at).enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_scalar(key, out);
                out.push(b':');
                write_json(tape, value, out);
            }
            out.push(b'}');
        }
        Some(Node::Array { .. }) => {
            out.push(b'[');
            for (position, element) in elements(tape, at).enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_json(tape, element, out);
            }
            out.push(b']');
        }
    }
}

/// Appends the text of a string, a number or a boolean.
pub fn write_scalar(value: impl serde::Serialize, out: &mut Vec<u8>) {
    // A Vec takes every write, and a scalar has no key to refuse: this cannot fail.
    let written = serde_json::to_writer(out, &value);
    debug_assert!(written.is_ok());
}

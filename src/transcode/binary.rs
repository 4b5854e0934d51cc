//! Avro's binary encoding of values whose length varies.

/// Appends Avro's `long`: zigzag, then seven bits a byte, the least significant first.
#[inline]
pub fn write_long(out: &mut Vec<u8>, long: i64) {
    let zigzag = ((long << 1) ^ (long >> 63)) as u64;
    if zigzag < 0x80 {
        out.push(zigzag as u8);
    } else if zigzag < 1 << 56 {
        // Each step halves the groups: of 28 bits, of 14, of 7. Then each byte but the last gets its "more follows"
        // bit.
        let spread = (zigzag & 0x0FFF_FFFF) | (zigzag & 0xFF_FFFF_F000_0000) << 4;
        let spread = (spread & 0x3FFF_0000_3FFF) | (spread & 0x0FFF_C000_0FFF_C000) << 2;
        let spread = (spread & 0x007F_007F_007F_007F) | (spread & 0x3F80_3F80_3F80_3F80) << 1;
        let length = (70 - zigzag.leading_zeros() as usize) / 7;
        let more = 0x0080_8080_8080_8080 & ((1 << (8 * (length - 1))) - 1);
        let end = out.len() + length;
        out.extend_from_slice(&(spread | more).to_le_bytes());
        out.truncate(end);
    } else {
        write_long_bytewise(out, zigzag);
    }
}

#[cold]
fn write_long_bytewise(out: &mut Vec<u8>, zigzag: u64) {
    let mut rest = zigzag;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends Avro's `string` or `bytes`: the length, then the bytes.
#[inline]
pub fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        length @ 0..64 => out.push(2 * length as u8),
        length => write_length(out, length),
    }
    out.extend_from_slice(bytes);
}

/// A function of its own, so that it is not compiled into every place that writes a string.
#[cold]
fn write_length(out: &mut Vec<u8>, length: usize) {
    write_long(out, length as i64);
}

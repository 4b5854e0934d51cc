//! A cursor that reads JSON text piece by piece. A method returns `None` where the text differs from what it reads, or
//! where the direct path does not handle it.

use super::super::same;

/// The text that is still to be read.
pub struct Cursor<'a> {
    /// The unread bytes.
    pub rest: &'a [u8],
    /// The number of containers that may still be opened.
    pub depth: usize,
}

impl<'a> Cursor<'a> {
    /// Reads the start of a container; true when it is not empty.
    #[inline(always)]
    pub fn open(&mut self, bracket: u8, end: u8) -> Option<bool> {
        self.byte(bracket)?;
        self.depth = self.depth.checked_sub(1)?;
        self.skip_space();
        if self.byte(end).is_none() {
            return Some(true);
        }
        self.depth += 1;
        Some(false)
    }

    /// Reads a colon with the space around it.
    #[inline(always)]
    pub fn colon(&mut self) -> Option<()> {
        self.skip_space();
        self.byte(b':')?;
        self.skip_space();
        Some(())
    }

    /// Reads what follows an item of a container; true when another item follows.
    #[inline(always)]
    pub fn next(&mut self, end: u8) -> Option<bool> {
        self.skip_space();
        if self.byte(b',').is_some() {
            self.skip_space();
            return Some(true);
        }
        self.byte(end)?;
        self.depth += 1;
        Some(false)
    }

    /// Reads this byte.
    #[inline(always)]
    pub fn byte(&mut self, expected: u8) -> Option<()> {
        match self.rest {
            [byte, rest @ ..] if *byte == expected => {
                self.rest = rest;
                Some(())
            }
            _ => None,
        }
    }

    /// Reads `text`, if it stands here; false if it does not.
    #[inline(always)]
    pub fn literal<const N: usize>(&mut self, text: &[u8; N]) -> bool {
        match self.rest.split_first_chunk::<N>() {
            Some((found, rest)) if found == text => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Skips JSON's white space.
    #[inline(always)]
    pub fn skip_space(&mut self) {
        if self.rest.first().is_some_and(|byte| *byte <= b' ') {
            self.skip_some_space();
        }
    }

    fn skip_some_space(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Reads this name with its quotes and colon, if it stands here; false if it does not.
    #[inline(always)]
    pub fn name(&mut self, member: &[u8]) -> bool {
        match self.rest.split_at_checked(member.len()) {
            Some((name, rest)) if same(name, member) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Reads a string without escapes; UTF-8.
    #[inline(always)]
    pub fn plain_string(&mut self) -> Option<&'a [u8]> {
        let [b'"', inside @ ..] = self.rest else { return None };
        let (text, [b'"', rest @ ..]) = plain(inside)? else { return None };
        self.rest = rest;
        Some(text)
    }

    /// Reads a string and appends it with its escapes (RFC 8259, section 7) replaced.
    #[cold]
    pub fn unescape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        self.byte(b'"')?;
        loop {
            let (plain, rest) = plain(self.rest)?;
            out.extend_from_slice(plain);
            self.rest = rest;
            if self.byte(b'"').is_some() {
                return Some(());
            }
            self.byte(b'\\')?;
            let (escaped, rest) = self.rest.split_first()?;
            self.rest = rest;
            let char = match *escaped {
                b'"' | b'\\' | b'/' => char::from(*escaped),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.code_point()?,
                _ => return None,
            };
            out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    fn code_point(&mut self) -> Option<char> {
        let first = self.four_digits()?;
        if !matches!(first, 0xD800..=0xDBFF) {
            return char::from_u32(first);
        }
        let second = if self.literal(b"\\u") { self.four_digits()? } else { return None };
        let low = second.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
        char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + low)
    }

    fn four_digits(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
    }

    /// Reads a whole number of at most 18 digits. The caller checks the byte after it, which may continue the number.
    #[inline(always)]
    pub fn integer(&mut self) -> Option<i64> {
        let negative = self.byte(b'-').is_some();
        let number = self.digits()?;
        // `-0` is left to the tape: as a key it would be `0`.
        (!negative || number != 0).then_some(if negative { -number } else { number })
    }

    #[inline(always)]
    fn digits(&mut self) -> Option<i64> {
        let (mut number, mut digits) = (0, 0);
        while let [digit @ b'0'..=b'9', rest @ ..] = self.rest {
            // A leading zero, or one digit too many.
            if digits == 18 || digits > 0 && number == 0 {
                return None;
            }
            number = number * 10 + i64::from(digit - b'0');
            digits += 1;
            self.rest = rest;
        }
        (digits > 0).then_some(number)
    }

    /// Reads a number that a double restores exactly: a whole one of at most 15 digits, or one with a fraction.
    pub fn double(&mut self) -> Option<f64> {
        let before = self.rest;
        let negative = self.byte(b'-').is_some();
        let whole = self.digits()?;
        if self.byte(b'.').is_none() {
            let whole = Some(whole).filter(|whole| *whole < 1_000_000_000_000_000 && (!negative || *whole != 0))?;
            return Some(if negative { -(whole as f64) } else { whole as f64 });
        }
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = self.rest.get(digits..).filter(|_| digits > 0)?;
        let text = before.get(..before.len() - self.rest.len())?;
        str::from_utf8(text).ok()?.parse().ok()
    }
}

/// Splits `text` after its leading bytes that a JSON string holds as they are: UTF-8 without quotes, escapes and
/// control characters. Reads eight bytes at a time.
#[inline(always)]
pub fn plain(text: &[u8]) -> Option<(&[u8], &[u8])> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = ONES << 7;
    // The lowest high bit that is set marks the first byte below `limit`; the bits above it may be wrong.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH_BITS;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, _) = text.as_chunks::<8>();
    let (mut length, mut not_ascii) = (0, 0);
    for word in words {
        let word = u64::from_le_bytes(*word);
        not_ascii |= word & HIGH_BITS;
        let ends = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        if ends != 0 {
            length += ends.trailing_zeros() as usize / 8;
            return split_plain(text, length, not_ascii != 0);
        }
        length += 8;
    }
    let rest = text.get(length..)?;
    let ends = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    length += rest.iter().position(ends).unwrap_or(rest.len());
    split_plain(text, length, true)
}

#[inline(always)]
fn split_plain(text: &[u8], length: usize, not_ascii: bool) -> Option<(&[u8], &[u8])> {
    let (plain, rest) = text.split_at_checked(length)?;
    if not_ascii && str::from_utf8(plain).is_err() { None } else { Some((plain, rest)) }
}

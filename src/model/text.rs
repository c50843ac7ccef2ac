//! Text as a Java server holds it: bytes read as UTF-8 with U+FFFD for what is none, and written again unit by unit.

use std::borrow::Cow;

const REPLACEMENT: u16 = 0xfffd;

/// The bytes that a Java server answers with when it was sent `bytes` as a string. Characters beyond the BMP come back
/// as two surrogates of three bytes each (`BinaryInputArchive.readString`, `BinaryOutputArchive.writeString`).
pub fn as_java_reads(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.is_ascii() {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (taken, units) = next(rest);
        for unit in units.into_iter().flatten() {
            write(unit, &mut out);
        }
        rest = &rest[taken..];
    }
    Cow::Owned(out)
}

/// The same as UTF-8: what `getBytes` gives.
pub fn as_java_holds(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.is_ascii() {
        return Cow::Borrowed(bytes);
    }
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (taken, found) = next(rest);
        units.extend(found.into_iter().flatten());
        rest = &rest[taken..];
    }
    Cow::Owned(String::from_utf16_lossy(&units).into_bytes())
}

/// How many bytes the next character takes, and its UTF-16 units. Malformed bytes are one U+FFFD for each longest
/// beginning of a character, as in `java.lang.String`; a surrogate of three bytes is one in whole.
fn next(bytes: &[u8]) -> (usize, [Option<u16>; 2]) {
    let follows = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let bits = |at: usize| u32::from(bytes[at] & 0x3f);
    let first = bytes[0];
    let wrong = |taken: usize| (taken, [Some(REPLACEMENT), None]);
    match first {
        0..0x80 => (1, [Some(u16::from(first)), None]),
        0xc2..0xe0 if follows(1) => (2, [Some(((u32::from(first & 0x1f) << 6) | bits(1)) as u16), None]),
        0xe0..0xf0 => {
            if !follows(1) || (first == 0xe0 && bytes[1] < 0xa0) {
                return wrong(1);
            }
            if !follows(2) {
                return wrong(2);
            }
            let unit = (u32::from(first & 0xf) << 12) | (bits(1) << 6) | bits(2);
            if (0xd800..0xe000).contains(&unit) { wrong(3) } else { (3, [Some(unit as u16), None]) }
        }
        0xf0..0xf5 => {
            let second = bytes.get(1).copied().unwrap_or_default();
            if !follows(1) || (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f) {
                return wrong(1);
            }
            if !follows(2) {
                return wrong(2);
            }
            if !follows(3) {
                return wrong(3);
            }
            let point = (u32::from(first & 7) << 18) | (bits(1) << 12) | (bits(2) << 6) | bits(3);
            let high = 0xd800 + ((point - 0x1_0000) >> 10);
            let low = 0xdc00 + ((point - 0x1_0000) & 0x3ff);
            (4, [Some(high as u16), Some(low as u16)])
        }
        _ => wrong(1),
    }
}

fn write(unit: u16, out: &mut Vec<u8>) {
    match unit {
        0..0x80 => out.push(unit as u8),
        0x80..0x800 => out.extend([0xc0 | (unit >> 6) as u8, 0x80 | (unit & 0x3f) as u8]),
        _ => {
            let last = [0x80 | (unit >> 6 & 0x3f) as u8, 0x80 | (unit & 0x3f) as u8];
            out.extend([0xe0 | (unit >> 12) as u8, last[0], last[1]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back_as_from_java() {
        let replaced = "\u{fffd}".as_bytes();
        for (sent, back) in [
            (&b"plain"[..], b"plain".to_vec()),
            ("\u{e4}\u{20ac}\0".as_bytes(), "\u{e4}\u{20ac}\0".into()),
            ("\u{1f600}".as_bytes(), b"\xed\xa0\xbd\xed\xb8\x80".to_vec()),
            // What Java wrote it does not read.
            (b"\xed\xa0\xbd\xed\xb8\x80", [replaced, replaced].concat()),
            (b"\xff\xfe", [replaced, replaced].concat()),
            (b"\xe2\x82", replaced.to_vec()),
            (b"\xe2\x82x", [replaced, b"x"].concat()),
            (b"\xe0\x80\x80", [replaced; 3].concat()),
            (b"\xf0\x9f\x98", replaced.to_vec()),
            (b"\xf0\x80x", [replaced, replaced, b"x"].concat()),
            (b"\xf4\x90\x80\x80", [replaced; 4].concat()),
            (b"\xc0\xaf", [replaced, replaced].concat()),
            (b"\xc3", replaced.to_vec()),
        ] {
            assert_eq!(as_java_reads(sent).as_ref(), back, "{sent:x?}");
        }
    }

    #[test]
    fn javas_bytes_of_a_text_are_utf_8() {
        assert_eq!(as_java_holds("\u{1f600}".as_bytes()).as_ref(), "\u{1f600}".as_bytes());
        assert_eq!(as_java_holds(b"u:\xff").as_ref(), "u:\u{fffd}".as_bytes());
    }
}

//! The text of DIGEST-MD5's messages: `key=value,key="value"` (RFC 2831, 7.1).

/// The directives of a message, each key at most once. A key that is there twice may mean that somebody added one.
pub(super) struct Directives<'a>(Vec<(&'a [u8], Vec<u8>)>);

impl<'a> Directives<'a> {
    /// Reads a message; what is no directive is an error.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let mut found: Vec<(&[u8], Vec<u8>)> = Vec::new();
        let mut rest = skip(text, |byte| is_space(byte) || byte == b',');
        while !rest.is_empty() {
            let at = rest.iter().position(|byte| *byte == b'=')?;
            let key = rest[..at].trim_ascii();
            let (value, after) = value(rest[at + 1..].trim_ascii_start())?;
            let is_word = !key.is_empty() && key.iter().all(|byte| byte.is_ascii_graphic());
            if !is_word || found.iter().any(|(known, _)| known.eq_ignore_ascii_case(key)) {
                return None;
            }
            found.push((key, value));
            rest = skip(after, is_space);
            if !rest.is_empty() && rest[0] != b',' {
                return None;
            }
            rest = skip(rest, |byte| is_space(byte) || byte == b',');
        }
        Some(Self(found))
    }

    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(key.as_bytes()));
        found.map(|(_, value)| &value[..])
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

fn skip(text: &[u8], what: impl Fn(u8) -> bool) -> &[u8] {
    &text[text.iter().position(|byte| !what(*byte)).unwrap_or(text.len())..]
}

/// A value and the text after it: in quotes, where a backslash takes the next byte as it is, or up to a comma.
fn value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b',').unwrap_or(text.len());
        let value = text[..end].trim_ascii_end();
        return (!value.is_empty()).then(|| (value.to_vec(), &text[end..]));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &quoted[at + 1..])),
            b'\\' => value.push(*bytes.next()?.1),
            _ => value.push(*byte),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_be_quoted() {
        let text = br#"username="a,\"b\\",realm="", nc=00000001 ,qop = auth"#;
        let directives = Directives::parse(text).unwrap();
        assert_eq!(directives.get("username"), Some(&br#"a,"b\"#[..]));
        assert_eq!(directives.get("realm"), Some(&b""[..]));
        assert_eq!(directives.get("NC"), Some(&b"00000001"[..]));
        assert_eq!(directives.get("qop"), Some(&b"auth"[..]));
        assert_eq!(directives.get("nonce"), None);
    }

    #[test]
    fn what_is_no_directive_is_refused() {
        let bad: [&[u8]; 8] = [b"a", b"=b", b"a=", b"a=\"b", b"a=\"b\\", b"a=\"b\"c=d", b"a=b,A=c", b"a b=c"];
        for text in bad {
            assert!(Directives::parse(text).is_none(), "{}", text.escape_ascii());
        }
        assert!(Directives::parse(b" ,, ").is_some_and(|directives| directives.0.is_empty()));
    }
}

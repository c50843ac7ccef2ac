//! The rules of znode paths (`common/PathUtils`). Paths are bytes: valid ones are UTF-8.

/// Whether `path` may name a znode: the rule that create, setData, setACL and check apply.
pub fn is_valid(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    if path.len() == 1 {
        return true;
    }
    // Plain ASCII is the common case and needs no decoding.
    if path.iter().all(|b| (0x20..0x7f).contains(b)) {
        return components_are_valid(path);
    }
    let Ok(text) = std::str::from_utf8(path) else { return false };
    !text.chars().any(is_forbidden) && components_are_valid(path)
}

fn components_are_valid(path: &[u8]) -> bool {
    path[1..].split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

/// Java checks UTF-16 units: every character outside the BMP starts with a surrogate, which is forbidden.
fn is_forbidden(c: char) -> bool {
    matches!(c as u32, 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..)
}

/// The parent's path as Java's prep stage cuts it: all before the last `/` (empty for a child of the root).
/// `None` where there is no `/`.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    path.iter().rposition(|b| *b == b'/').map(|at| &path[..at])
}

/// The last component.
pub fn name(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => &path[at + 1..],
        None => path,
    }
}

/// The first name in a path: metrics are counted by it (`PathUtils.getTopNamespace`).
pub fn namespace(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'/').nth(1).unwrap_or_default()
}

/// A path for people: invalid UTF-8 and control characters are escaped.
pub fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_pathutils_hold() {
        for good in ["/", "/a", "/a/b", "/...", "/x.", "/\u{a0}", "/\u{d7ff}", "/\u{f900}", "/a b"] {
            assert!(is_valid(good.as_bytes()), "{good:?}");
        }
        let bad = [
            "",
            "a",
            "/a/",
            "//",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/\0",
            "/\u{1}",
            "/\u{1f}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{ffff}",
            "/\u{1f600}",
        ];
        for bad in bad {
            assert!(!is_valid(bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_valid(b"/\xff"), "not UTF-8");
    }

    #[test]
    fn parents_are_cut_at_the_last_slash() {
        assert_eq!(parent(b"/a"), Some(&b""[..]));
        assert_eq!(parent(b"/a/b"), Some(&b"/a"[..]));
        assert_eq!(parent(b"a"), None);
        assert_eq!(name(b"/a/b"), b"b");
    }

    #[test]
    fn a_namespace_is_the_first_name() {
        assert_eq!(namespace(b"/a"), b"a");
        assert_eq!(namespace(b"/a/b/c"), b"a");
        assert_eq!(namespace(b"/"), b"");
    }
}

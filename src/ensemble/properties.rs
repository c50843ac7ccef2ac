//! The syntax of `zoo.cfg` and of an ensemble's text: that of `java.util.Properties`.

/// One `key=value` with the line that it begins on, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub line: usize,
    pub key: String,
    pub value: String,
}

/// Reads comments (`#`, `!`), continuations (`\` at the end), escapes, and `=`, `:` or blanks as separators.
pub fn parse(text: &str) -> Vec<Property> {
    let mut found = Vec::new();
    // A lone CR ends a line too.
    let mut lines =
        text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r')).enumerate();
    while let Some((number, first)) = lines.next() {
        let mut logical = first.trim_start().to_string();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while is_continued(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start()),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        found.push(Property { line: number + 1, key, value: value.trim().to_string() });
    }
    found
}

fn is_continued(line: &str) -> bool {
    line.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1
}

/// At the first separator that is not escaped; blanks around it belong to neither side.
fn split(line: &str) -> (String, String) {
    let mut escaped = false;
    let end = line.char_indices().find(|(_, c)| {
        if escaped {
            escaped = false;
            return false;
        }
        escaped = *c == '\\';
        matches!(c, '=' | ':' | ' ' | '\t' | '\x0c')
    });
    let Some((at, _)) = end else { return (unescape(line), String::new()) };
    let rest = line[at..].trim_start_matches([' ', '\t', '\x0c']);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (unescape(&line[..at]), unescape(rest.trim_start_matches([' ', '\t', '\x0c'])))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\x0c'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                out.extend(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_three_line_ends_counts_once() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["a=1", "", "b=\\", "2", "c=3", ""].join(end);
            let found: Vec<_> = parse(&text).into_iter().map(|p| (p.line, p.key, p.value)).collect();
            let expected = [(1, "a", "1"), (3, "b", "2"), (5, "c", "3")];
            assert_eq!(found, expected.map(|(line, key, value)| (line, key.to_string(), value.to_string())));
        }
    }

    #[test]
    fn the_syntax_is_that_of_java_properties() {
        let text =
            "# comment\n! too\n a = b \nc:d\ne f\n\nlong=one\\\n   two\nkey\\ with=\\u0041\\\\n\nempty\n";
        let found: Vec<_> = parse(text).into_iter().map(|p| (p.line, p.key, p.value)).collect();
        let expected = [
            (3, "a", "b"),
            (4, "c", "d"),
            (5, "e", "f"),
            (7, "long", "onetwo"),
            (9, "key with", "A\\n"),
            (10, "empty", ""),
        ];
        assert_eq!(found, expected.map(|(line, key, value)| (line, key.to_string(), value.to_string())));
    }
}

//! The login configuration of a JVM (`java.security.auth.login.config`), as far as a server reads it:
//! `Section { a.Module required key="value" ...; };`.

use crate::model::Accounts;
use std::str::Chars;

/// The only module that is known here.
const DIGEST_MODULE: &str = "DigestLoginModule";

/// The accounts that the section `wanted` lists as `user_NAME="PASSWORD"`; `None`: there is no such section. An error
/// comes with its line.
pub(super) fn accounts(text: &str, wanted: &str) -> Result<Option<Accounts>, (usize, String)> {
    let mut tokens = Tokens { rest: text, line: 1 };
    let mut found = None;
    while let Some(name) = tokens.next()? {
        let Token::Word(name) = name else { return tokens.wrong("a section's name is needed") };
        if tokens.next()? != Some(Token::Mark('{')) {
            return tokens.wrong("a { is needed behind a section's name");
        }
        let accounts = section(&mut tokens, name == wanted)?;
        if tokens.next()? != Some(Token::Mark(';')) {
            return tokens.wrong("a ; is needed behind a section");
        }
        if name == wanted {
            if found.is_some() {
                return tokens.wrong("the section stands there twice");
            }
            found = Some(accounts);
        }
    }
    Ok(found)
}

/// The rest of a section up to its end; only of the one that counts the modules have to be known.
fn section(tokens: &mut Tokens<'_>, counts: bool) -> Result<Accounts, (usize, String)> {
    let mut accounts = Accounts::default();
    loop {
        let module = match tokens.next()? {
            Some(Token::Mark('}')) => return Ok(accounts),
            Some(Token::Word(module)) => module,
            _ => return tokens.wrong("a login module or } is needed"),
        };
        if counts && module.rsplit('.').next() != Some(DIGEST_MODULE) {
            return tokens.wrong(&format!(
                "{module} is not there: accounts of {DIGEST_MODULE} are all that is known here"
            ));
        }
        if !matches!(tokens.next()?, Some(Token::Word(_))) {
            return tokens
                .wrong("required, requisite, sufficient or optional is needed behind a login module");
        }
        loop {
            let key = match tokens.next()? {
                Some(Token::Mark(';')) => break,
                Some(Token::Word(key)) => key,
                _ => return tokens.wrong("an option or ; is needed"),
            };
            let is_set = tokens.next()? == Some(Token::Mark('='));
            let Some(Token::Word(value)) = tokens.next()?.filter(|_| is_set) else {
                return tokens.wrong(&format!("a value is needed: {key}=\"...\""));
            };
            if let Some(user) = key.strip_prefix("user_").filter(|_| counts) {
                if value.contains("${") {
                    return tokens.wrong(&format!("{key}: properties are not filled in here"));
                }
                accounts.insert(user, &value);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Mark(char),
}

struct Tokens<'a> {
    rest: &'a str,
    line: usize,
}

impl Tokens<'_> {
    fn wrong<T>(&self, what: &str) -> Result<T, (usize, String)> {
        Err((self.line, what.into()))
    }

    /// Goes on by so many bytes, and returns them.
    fn take(&mut self, bytes: usize) -> &str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn skip_space_and_comments(&mut self) -> Result<(), (usize, String)> {
        loop {
            let rest = self.rest;
            if rest.starts_with("//") {
                self.take(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                let Some(end) = rest.find("*/") else { return self.wrong("a comment without an end") };
                self.take(end + 2);
            } else {
                let space = rest.len() - rest.trim_start().len();
                if space == 0 {
                    return Ok(());
                }
                self.take(space);
            }
        }
    }

    fn next(&mut self) -> Result<Option<Token>, (usize, String)> {
        self.skip_space_and_comments()?;
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        if "{};=".contains(first) {
            self.take(1);
            return Ok(Some(Token::Mark(first)));
        }
        if first != '"' {
            let is_end = |c: char| c.is_whitespace() || "{};=\"".contains(c);
            let word = self.take(self.rest.find(is_end).unwrap_or(self.rest.len()));
            return Ok(Some(Token::Word(word.into())));
        }
        let quoted = &self.rest[1..];
        let mut word = String::new();
        let mut chars = quoted.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => {
                    let bytes = self.rest.len() - chars.as_str().len();
                    self.take(bytes);
                    return Ok(Some(Token::Word(word)));
                }
                '\\' => word.extend(escaped(&mut chars)),
                '\n' => break,
                _ => word.push(c),
            }
        }
        self.wrong("a text in quotes without an end")
    }
}

/// Reads what follows a backslash in quotes: a control character by its letter, any of Latin-1 by up to three octal
/// digits, or the character itself (`java.io.StreamTokenizer`).
fn escaped(chars: &mut Chars<'_>) -> Option<char> {
    Some(match chars.next()? {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        first @ '0'..='7' => {
            let mut code = first.to_digit(8)?;
            // Three digits would not fit into a byte after a 4.
            let most = if first <= '3' { 2 } else { 1 };
            for _ in 0..most {
                let Some(digit) = chars.clone().next().and_then(|next| next.to_digit(8)) else { break };
                chars.next();
                code = code * 8 + digit;
            }
            char::from_u32(code)?
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        // Who may log in.
        Server {
            org.apache.zookeeper.server.auth.DigestLoginModule required
                user_super="a \"secret\""   /* quoted */
                user_bob=plain;
        };
        Client {
            com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true keyTab="${user.home}/k";
        };
    "#;

    #[test]
    fn a_sections_users_are_its_accounts() {
        let server = accounts(FILE, "Server").unwrap().unwrap();
        assert_eq!(server.password("super"), Some("a \"secret\""));
        assert_eq!(server.password("bob"), Some("plain"));
        assert_eq!(server.password("alice"), None);
        assert_eq!(format!("{server:?}"), r#"{"bob", "super"}"#, "no password is printed");
        assert_eq!(accounts(FILE, "QuorumServer"), Ok(None));
    }

    #[test]
    fn escapes_in_quotes_are_the_jdks() {
        for (quoted, password) in [
            (r"p\tq", "p\tq"),
            (r"\n\r\a\b\f\v", "\n\r\x07\x08\x0c\x0b"),
            (r"\101\7\18\477\0", "A\x07\x018'7\0"),
            (r"\377", "\u{ff}"),
            (r#"\\\"\q\8"#, "\\\"q8"),
        ] {
            let text = format!("Server {{ DigestLoginModule required user_a=\"{quoted}\"; }};");
            let found = accounts(&text, "Server").unwrap().unwrap();
            assert_eq!(found.password("a"), Some(password), "{quoted}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let wrong = |text: &str| accounts(text, "Server").unwrap_err();
        let (line, what) = accounts(FILE, "Client").unwrap_err();
        assert!(line == 9 && what.contains("Krb5LoginModule is not there"), "{line}: {what}");
        for (text, line, what) in [
            ("Server\n{\n", 3, "a login module or } is needed"),
            ("{", 1, "a section's name"),
            ("Server x", 1, "a {"),
            ("Server {\nDigestLoginModule;", 2, "required"),
            ("Server { DigestLoginModule required\nuser_a;", 2, "user_a=\"...\""),
            ("Server { DigestLoginModule required user_a=\"b\n\";};", 1, "without an end"),
            ("Server { DigestLoginModule required user_a=\"${b}\";};", 1, "not filled in"),
            ("Server { } Client", 1, "a ; is needed"),
            ("Server { };\nServer { };", 2, "twice"),
            ("/* Server", 1, "a comment without an end"),
        ] {
            let found = wrong(text);
            assert!(found.0 == line && found.1.contains(what), "{text}: {found:?}");
        }
    }
}

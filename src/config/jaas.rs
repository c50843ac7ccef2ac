//! The login configuration of a JVM (`java.security.auth.login.config`), as far as a server reads it:
//! `Section { a.Module required key="value" ...; };`.

use crate::model::Accounts;
use std::str::Chars;

/// The only module that is known here.
const DIGEST_MODULE: &str = "DigestLoginModule";

/// What is wrong with a line of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JaasError {
    /// In words, after "expected".
    #[error("expected {0}")]
    Expected(&'static str),
    #[error("expected a value: {key}=\"...\"")]
    NoValue { key: String },
    #[error("the login module {module} does not exist here: only accounts of {DIGEST_MODULE} are read")]
    NoSuchModule { module: String },
    #[error("{key}: properties are not filled in here")]
    Property { key: String },
    #[error("the section is there twice")]
    Twice,
    #[error("a comment without an end")]
    OpenComment,
    #[error("a text in quotes without an end")]
    OpenQuotes,
}

/// An error with its line.
type At<T> = Result<T, (usize, JaasError)>;

/// The accounts that the section `wanted` lists as `user_NAME="PASSWORD"`; `None`: there is no such section. An error
/// comes with its line.
pub(super) fn accounts(text: &str, wanted: &str) -> At<Option<Accounts>> {
    let mut tokens = Tokens { rest: text, line: 1 };
    let mut found = None;
    while let Some(name) = tokens.next()? {
        let Token::Word(name) = name else { return tokens.expected("a section's name") };
        if tokens.next()? != Some(Token::Mark('{')) {
            return tokens.expected("a { after a section's name");
        }
        let accounts = section(&mut tokens, name == wanted)?;
        if tokens.next()? != Some(Token::Mark(';')) {
            return tokens.expected("a ; after a section");
        }
        if name == wanted {
            if found.is_some() {
                return tokens.wrong(JaasError::Twice);
            }
            found = Some(accounts);
        }
    }
    Ok(found)
}

/// The rest of a section up to its end; the modules must be known only in the section that counts.
fn section(tokens: &mut Tokens<'_>, counts: bool) -> At<Accounts> {
    let mut accounts = Accounts::default();
    loop {
        let module = match tokens.next()? {
            Some(Token::Mark('}')) => return Ok(accounts),
            Some(Token::Word(module)) => module,
            _ => return tokens.expected("a login module or }"),
        };
        if counts && module.rsplit('.').next() != Some(DIGEST_MODULE) {
            return tokens.wrong(JaasError::NoSuchModule { module });
        }
        if !matches!(tokens.next()?, Some(Token::Word(_))) {
            return tokens.expected("required, requisite, sufficient or optional after a login module");
        }
        loop {
            let key = match tokens.next()? {
                Some(Token::Mark(';')) => break,
                Some(Token::Word(key)) => key,
                _ => return tokens.expected("an option or ;"),
            };
            let is_set = tokens.next()? == Some(Token::Mark('='));
            let Some(Token::Word(value)) = tokens.next()?.filter(|_| is_set) else {
                return tokens.wrong(JaasError::NoValue { key });
            };
            if let Some(user) = key.strip_prefix("user_").filter(|_| counts) {
                if value.contains("${") {
                    return tokens.wrong(JaasError::Property { key: key.clone() });
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
    fn wrong<T>(&self, what: JaasError) -> At<T> {
        Err((self.line, what))
    }

    fn expected<T>(&self, what: &'static str) -> At<T> {
        self.wrong(JaasError::Expected(what))
    }

    /// Takes this many bytes, and returns them.
    fn take(&mut self, bytes: usize) -> &str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn skip_space_and_comments(&mut self) -> At<()> {
        loop {
            let rest = self.rest;
            if rest.starts_with("//") {
                self.take(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                let Some(end) = rest.find("*/") else { return self.wrong(JaasError::OpenComment) };
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

    fn next(&mut self) -> At<Option<Token>> {
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
        self.wrong(JaasError::OpenQuotes)
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
        use JaasError::*;
        let module = "com.sun.security.auth.module.Krb5LoginModule".into();
        assert_eq!(accounts(FILE, "Client"), Err((9, NoSuchModule { module })));
        for (text, line, what) in [
            ("Server\n{\n", 3, Expected("a login module or }")),
            ("{", 1, Expected("a section's name")),
            ("Server x", 1, Expected("a { after a section's name")),
            (
                "Server {\nDigestLoginModule;",
                2,
                Expected("required, requisite, sufficient or optional after a login module"),
            ),
            ("Server { DigestLoginModule required\nuser_a;", 2, NoValue { key: "user_a".into() }),
            ("Server { DigestLoginModule required user_a=\"b\n\";};", 1, OpenQuotes),
            ("Server { DigestLoginModule required user_a=\"${b}\";};", 1, Property { key: "user_a".into() }),
            ("Server { } Client", 1, Expected("a ; after a section")),
            ("Server { };\nServer { };", 2, Twice),
            ("/* Server", 1, OpenComment),
        ] {
            assert_eq!(accounts(text, "Server"), Err((line, what)), "{text}");
        }
        let said = |error: JaasError| error.to_string();
        assert_eq!(said(NoValue { key: "user_a".into() }), "expected a value: user_a=\"...\"");
    }
}

//! The paths that a source text names: the little of Rust's grammar that the floor plan has to read.

use std::collections::{BTreeMap, BTreeSet};

/// A path from the root of its crate, word by word: `["crate", "tree", "Node"]`, `["std", "fs", "read"]`.
pub type Names = Vec<String>;

/// Every path of two words or more in the text of the module `module`. What `use` brought in is followed, so `fs::read` after
/// `use std::fs` is `std::fs::read`.
pub fn named(module: Names, text: &str) -> BTreeSet<Names> {
    let tokens = tokens(text);
    let read = |imported| {
        let mut reading =
            Reading { tokens: &tokens, at: 0, module: module.clone(), imported, named: BTreeSet::new() };
        reading.all();
        reading
    };
    // Twice, as a `use` may come after what needs it.
    let first = read(BTreeMap::new());
    read(first.imported).named
}

struct Reading<'a> {
    tokens: &'a [&'a str],
    at: usize,
    /// The module of the place that is read, from the root of the crate.
    module: Names,
    /// What each name means that a `use` of this file brought in.
    imported: BTreeMap<String, Names>,
    named: BTreeSet<Names>,
}

impl Reading<'_> {
    fn all(&mut self) {
        // Of each inline module that is open: how many braces were open before it.
        let mut modules = Vec::new();
        let mut depth = 0;
        while let Some(&token) = self.tokens.get(self.at) {
            match token {
                "use" => {
                    self.at += 1;
                    self.use_tree(Vec::new());
                }
                "mod" if self.tokens.get(self.at + 2) == Some(&"{") => {
                    self.module.push(self.tokens[self.at + 1].to_string());
                    modules.push(depth);
                    self.at += 2;
                }
                word if is_word(word) || word == "::" => {
                    let path = self.path();
                    self.found(&path);
                }
                brace => {
                    self.at += 1;
                    depth += i32::from(brace == "{") - i32::from(brace == "}");
                    if brace == "}" && modules.pop_if(|before| *before == depth).is_some() {
                        self.module.pop();
                    }
                }
            }
        }
    }

    fn peek(&self) -> &str {
        self.tokens.get(self.at).unwrap_or(&"")
    }

    fn take(&mut self, token: &str) -> bool {
        let is_next = self.peek() == token;
        self.at += usize::from(is_next);
        is_next
    }

    /// `a::b::c`, without what follows after `::` if that is no word.
    fn path(&mut self) -> Names {
        let mut path = Vec::new();
        self.take("::");
        while is_word(self.peek()) {
            path.push(self.peek().to_string());
            self.at += 1;
            if self.peek() == "::" && self.tokens.get(self.at + 1).is_some_and(|next| is_word(next)) {
                self.at += 1;
            } else {
                break;
            }
        }
        path
    }

    fn use_tree(&mut self, mut path: Names) {
        path.extend(self.path());
        self.take("::");
        if self.take("{") {
            while !self.take("}") {
                self.use_tree(path.clone());
                assert!(self.take(",") || self.peek() == "}", "a `use` that cannot be read");
            }
            return;
        }
        if self.take("*") {
            path.push("*".to_string());
        } else if path.len() > 1 && path.ends_with(&["self".to_string()]) {
            path.pop();
        }
        // `impl Trait + use<'a>` is no import.
        if path.is_empty() {
            return;
        }
        let name = if self.take("as") {
            self.at += 1;
            self.tokens[self.at - 1].to_string()
        } else {
            path.last().cloned().unwrap_or_default()
        };
        let resolved = self.resolved(&path);
        self.imported.insert(name, resolved.clone());
        self.named.insert(resolved);
    }

    fn found(&mut self, path: &[String]) {
        if path.len() > 1 {
            self.named.insert(self.resolved(path));
        }
    }

    fn resolved(&self, path: &[String]) -> Names {
        let Some(first) = path.first() else { return Vec::new() };
        if first == "self" || first == "super" {
            let is_way = |name: &&String| *name == "self" || *name == "super";
            let ups = path.iter().take_while(is_way).filter(|name| *name == "super").count();
            let kept = &self.module[..self.module.len().saturating_sub(ups)];
            return [&"crate".to_string()]
                .into_iter()
                .chain(kept)
                .chain(path.iter().skip_while(is_way))
                .cloned()
                .collect();
        }
        match self.imported.get(first) {
            Some(meant) if path.len() > 1 => meant.iter().chain(&path[1..]).cloned().collect(),
            _ => path.to_vec(),
        }
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The words and signs of a text, without comments, strings, and characters in quotes.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let after_word = rest[word..].chars().next();
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string_length(rest),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#\"") => raw_string_length(rest),
            '\'' => quoted_length(rest),
            // The prefix of a string or a character is no word.
            'b' | 'c' if word == 1 && matches!(after_word, Some('"' | '\'')) => 1,
            space if space.is_whitespace() => space.len_utf8(),
            _ => 0,
        };
        let length = match skipped {
            0 if rest.starts_with("::") => 2,
            0 => word.max(first.len_utf8()),
            _ => skipped,
        };
        if skipped == 0 {
            found.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    found
}

fn string_length(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !is_escaped => return at + 1,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    rest.len()
}

fn raw_string_length(rest: &str) -> usize {
    let hashes = rest[1..].find('"').unwrap_or(0);
    let end = format!("\"{}", "#".repeat(hashes));
    let opening = 1 + end.len();
    rest[opening..].find(&end).map_or(rest.len(), |at| opening + at + end.len())
}

/// `'x'` and `'\n'` are characters. Of a lifetime only the quote is skipped.
fn quoted_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(rest.len(), |(at, _)| at + 1)
        }
        _ => chars.next().filter(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1),
    }
}

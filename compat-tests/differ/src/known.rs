//! The known differences: which of the rules of `compare` may be used, and why. One file, a line each.

use std::cell::Cell;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/known-differences.txt");
const AT_MOST: usize = 15;

/// A difference that has a rule. What each rule demands of both servers stands where it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Java gives the error of a write that does not decode the zxid of the write before it.
    MalformedWrite,
    /// Java runs deleteContainer and createSession for any client.
    OwnOperations,
    /// Java cuts the owner's connection before it looks at the password of somebody else.
    PasswordFirst,
}

const RULES: [(Rule, &str); 3] = [
    (Rule::MalformedWrite, "malformed-write"),
    (Rule::OwnOperations, "own-operations"),
    (Rule::PasswordFirst, "password-first"),
];

#[derive(Debug)]
pub struct Known {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    rule: Rule,
    name: String,
    used: Cell<u64>,
}

impl Known {
    pub fn load() -> Result<Known, String> {
        let text = std::fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
        Self::parse(&text)
    }

    /// `name: reason`, and comments.
    pub fn parse(text: &str) -> Result<Known, String> {
        let mut lines: Vec<Line> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, reason) = line.split_once(':').ok_or_else(|| format!("no reason: {line}"))?;
            if reason.trim().len() < 20 {
                return Err(format!("that is no reason: {line}"));
            }
            let found = RULES.iter().find(|(_, rule)| *rule == name);
            let (rule, _) = found.ok_or_else(|| format!("{name} is no rule"))?;
            if lines.iter().any(|line| line.rule == *rule) {
                return Err(format!("{name} stands there twice"));
            }
            lines.push(Line { rule: *rule, name: name.into(), used: Cell::new(0) });
        }
        if lines.len() > AT_MOST {
            return Err(format!("{} lines; {AT_MOST} are allowed", lines.len()));
        }
        Ok(Known { lines })
    }

    /// Whether a difference of this kind is known. Counts it as met.
    pub fn explains(&self, rule: Rule) -> bool {
        let line = self.lines.iter().find(|line| line.rule == rule);
        line.inspect(|line| line.used.set(line.used.get() + 1)).is_some()
    }

    pub fn unused(&self) -> Vec<&str> {
        self.lines.iter().filter(|line| line.used.get() == 0).map(|line| &*line.name).collect()
    }

    pub fn used(&self) -> String {
        let each = self.lines.iter().map(|line| format!("{} {}", line.name, line.used.get()));
        each.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_in_order() {
        assert!(Known::load().is_ok());
    }

    #[test]
    fn a_line_needs_a_rule_and_a_reason_and_its_use() {
        let reason = "because of some good reason";
        assert!(Known::parse(&format!("no-rule: {reason}")).is_err());
        assert!(Known::parse("own-operations: so").is_err());
        assert!(Known::parse(&format!("own-operations: {reason}\nown-operations: {reason}")).is_err());
        let known = Known::parse(&format!("# comment\n\nown-operations: {reason}\n")).unwrap();
        assert_eq!(known.unused(), ["own-operations"]);
        assert!(!known.explains(Rule::PasswordFirst), "it is not listed");
        assert!(known.explains(Rule::OwnOperations));
        assert!(known.unused().is_empty());
    }
}

//! A script: what is done to both servers, step by step. It has a text form, so that a difference can be replayed.

use std::fmt::Write;

/// One step. Sessions live in slots; a step on a slot that is not in the state it needs does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A new session in the slot.
    Open { slot: usize, timeout: i32, read_only: Option<u8> },
    /// A request that goes out at the next `await`. With `back`, its first long is a zxid: the canonical one that the
    /// slot has seen last, less so many.
    Send { slot: usize, xid: i32, op: i32, back: Option<i64>, body: Vec<u8> },
    /// Sends what has gathered, each slot's requests at once, and takes all replies before the next slot sends.
    Await,
    /// The same, but all slots send at the same time.
    AwaitTogether,
    /// The client closes the connection; the session stays.
    Cut { slot: usize },
    /// A new connection for the slot's session, be the old one cut or not.
    Resume { slot: usize, timeout: i32, password: Password, seen: Seen },
    /// Bytes that end the connection.
    Raw { slot: usize, bytes: Vec<u8> },
    /// A connect request of its own; a session that it gets is closed at once.
    Probe { body: Vec<u8> },
    /// Waits until the slot's session expires.
    Expire { slot: usize },
    /// Waits until the slot hears that a znode went by itself.
    Removal { slot: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Password {
    Right,
    Wrong,
    Null,
}

/// Which zxid a connect request claims to have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Zero,
    Last,
    Future,
}

/// The script as text, a step a line, with `note` behind each `send`.
pub fn print(steps: &[Step], note: impl Fn(i32, &[u8]) -> String) -> String {
    let mut text = String::new();
    for step in steps {
        let line = match step {
            Step::Open { slot, timeout, read_only } => {
                let flag = read_only.map_or("-".into(), |flag| flag.to_string());
                format!("open {slot} {timeout} {flag}")
            }
            Step::Send { slot, xid, op, back, body } => {
                let back = back.map_or("-".into(), |back| back.to_string());
                format!("send {slot} {xid} {op} {back} {}  # {}", hex(body), note(*op, body))
            }
            Step::Await => "await".into(),
            Step::AwaitTogether => "await-together".into(),
            Step::Cut { slot } => format!("cut {slot}"),
            Step::Resume { slot, timeout, password, seen } => {
                format!("resume {slot} {timeout} {password:?} {seen:?}")
            }
            Step::Raw { slot, bytes } => format!("raw {slot} {}", hex(bytes)),
            Step::Probe { body } => format!("probe {}", hex(body)),
            Step::Expire { slot } => format!("expire {slot}"),
            Step::Removal { slot } => format!("removal {slot}"),
        };
        writeln!(text, "{line}").expect("a string takes everything");
    }
    text
}

/// Reads the text form. What follows a `#` is not looked at.
pub fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            steps.push(step(line).ok_or_else(|| format!("line {}: {line:?} is no step", number + 1))?);
        }
    }
    Ok(steps)
}

fn step(line: &str) -> Option<Step> {
    let mut words = line.split_whitespace();
    let mut word = || words.next();
    Some(match word()? {
        "open" => Step::Open {
            slot: word()?.parse().ok()?,
            timeout: word()?.parse().ok()?,
            read_only: optional(word()?)?,
        },
        "send" => Step::Send {
            slot: word()?.parse().ok()?,
            xid: word()?.parse().ok()?,
            op: word()?.parse().ok()?,
            back: optional(word()?)?,
            body: unhex(word()?)?,
        },
        "await" => Step::Await,
        "await-together" => Step::AwaitTogether,
        "cut" => Step::Cut { slot: word()?.parse().ok()? },
        "resume" => Step::Resume {
            slot: word()?.parse().ok()?,
            timeout: word()?.parse().ok()?,
            password: match word()? {
                "Right" => Password::Right,
                "Wrong" => Password::Wrong,
                "Null" => Password::Null,
                _ => return None,
            },
            seen: match word()? {
                "Zero" => Seen::Zero,
                "Last" => Seen::Last,
                "Future" => Seen::Future,
                _ => return None,
            },
        },
        "raw" => Step::Raw { slot: word()?.parse().ok()?, bytes: unhex(word()?)? },
        "probe" => Step::Probe { body: unhex(word()?)? },
        "expire" => Step::Expire { slot: word()?.parse().ok()? },
        "removal" => Step::Removal { slot: word()?.parse().ok()? },
        _ => return None,
    })
}

fn optional<T: std::str::FromStr>(word: &str) -> Option<Option<T>> {
    if word == "-" { Some(None) } else { word.parse().ok().map(Some) }
}

/// `-` stands for no bytes.
pub fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".into();
    }
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return Some(Vec::new());
    }
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_its_text_form() {
        let steps = vec![
            Step::Open { slot: 1, timeout: -5, read_only: None },
            Step::Open { slot: 1, timeout: 30_000, read_only: Some(1) },
            Step::Send { slot: 0, xid: -8, op: 101, back: Some(-3), body: vec![0, 255] },
            Step::Send { slot: 0, xid: 7, op: 11, back: None, body: vec![] },
            Step::Await,
            Step::AwaitTogether,
            Step::Cut { slot: 2 },
            Step::Resume { slot: 2, timeout: 1, password: Password::Wrong, seen: Seen::Future },
            Step::Raw { slot: 3, bytes: vec![0x80, 1] },
            Step::Probe { body: vec![1, 2, 3] },
            Step::Expire { slot: 3 },
            Step::Removal { slot: 3 },
        ];
        let text = print(&steps, |op, _| format!("op {op} # send 9 9"));
        assert_eq!(parse(&text), Ok(steps));
    }

    #[test]
    fn what_is_no_step_is_named_with_its_line() {
        assert_eq!(parse("await\n\nsend 0 1"), Err("line 3: \"send 0 1\" is no step".into()));
    }
}

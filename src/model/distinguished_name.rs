//! Names of people and machines in certificates: the ids of the scheme `x509`.

/// The attributes that have a short name there; others are written as numbers.
pub const SHORT_NAMES: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];
/// What Java reads beside these.
const MORE_NAMES: [&str; 12] = [
    "S",
    "T",
    "IP",
    "DNQUALIFIER",
    "DNQ",
    "SURNAME",
    "GIVENNAME",
    "INITIALS",
    "GENERATION",
    "EMAIL",
    "EMAILADDRESS",
    "SERIALNUMBER",
];

/// Whether an ACL may name this (`new X500Principal(id)`): attributes with commas, semicolons or plus signs between them.
pub fn is_valid(text: &str) -> bool {
    text.trim().is_empty() || split(text).is_some_and(|parts| parts.iter().all(|part| is_attribute(part)))
}

/// The attributes of a name: what separates them counts only outside of quotes, and not after a backslash.
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' | ';' | '+' if !quoted => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    (!quoted && !escaped).then_some(parts)
}

fn is_attribute(text: &str) -> bool {
    let Some((name, _)) = text.split_once('=') else { return false };
    let name = name.trim().to_ascii_uppercase();
    let number = name.strip_prefix("OID.").unwrap_or(&name);
    let mut arcs = number.split('.');
    let is_number = arcs.clone().count() > 1 && arcs.all(|arc| arc.parse::<u64>().is_ok());
    is_number || SHORT_NAMES.iter().any(|(_, short)| *short == name) || MORE_NAMES.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn names_are_read_as_java_reads_them() {
        for name in [
            "CN=client",
            "cn = client , O=\"a, b\";C=DE",
            "CN=a+UID=b,2.5.4.3=c,OID.1.2=#0403616263",
            "EMAILADDRESS=a@b",
            "CN=a\\,b",
            "CN=",
            "",
        ] {
            assert!(is_valid(name), "{name:?}");
        }
        for name in ["client", "X=y", "CN=a,", "CN=\"a", "CN=a\\", "1.x=y", "=a"] {
            assert!(!is_valid(name), "{name:?}");
        }
    }
}

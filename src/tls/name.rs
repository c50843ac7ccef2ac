//! The subject of a certificate, as Java writes it (`X500Principal.getName()`, RFC 2253).

use crate::model::distinguished_name::SHORT_NAMES;
use std::fmt::Write;
use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

const ESCAPED: &str = ",=+<>#;\"\\";
const TEXTS: [Tag; 7] = [
    Tag::Utf8String,
    Tag::PrintableString,
    Tag::T61String,
    Tag::Ia5String,
    Tag::GeneralString,
    Tag::BmpString,
    Tag::UniversalString,
];

/// The subject of a certificate; `None`: it can't be read.
pub fn subject_of(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    // The most special part comes first.
    let parts: Vec<_> = certificate.subject().iter_rdn().collect();
    let texts = parts.iter().rev().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"));
    Some(texts.collect::<Vec<_>>().join(","))
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let number = attribute.attr_type().to_id_string();
    let short = SHORT_NAMES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name);
    let value = attribute.attr_value();
    match short {
        Some(name) if TEXTS.contains(&value.tag()) => {
            format!("{name}={}", escaped(&String::from_utf8_lossy(value.data)))
        }
        _ => {
            let mut text = format!("{}=#", short.unwrap_or(&number));
            let der = [&header(value.tag(), value.data.len())[..], value.data].concat();
            der.iter().for_each(|byte| {
                let _ = write!(text, "{byte:02x}");
            });
            text
        }
    }
}

/// Tag and length of a value.
fn header(tag: Tag, len: usize) -> Vec<u8> {
    let bytes = len.to_be_bytes();
    let short = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1)..];
    match len {
        0..0x80 => vec![tag.0 as u8, len as u8],
        _ => [&[tag.0 as u8, 0x80 | short.len() as u8][..], short].concat(),
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        match c {
            '\0' => text.push_str("\\00"),
            _ if ESCAPED.contains(c) => text.extend(['\\', c]),
            _ => text.push(c),
        }
    }
    let is_blank = |c: char| c == ' ' || c == '\r';
    let lead = text.len() - text.trim_start_matches(is_blank).len();
    let trail = text.trim_end_matches(is_blank).len().max(lead);
    let outside = |part: &str| part.chars().flat_map(|c| ['\\', c]).collect::<String>();
    format!("{}{}{}", outside(&text[..lead]), &text[lead..trail], outside(&text[trail..]))
}

//! Writes the Rust of the records: one struct each, generic over how it holds bytes, with encoder and decoder.

use super::grammar::{Field, Kind, Record};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What is known of a record by its fields.
struct Shape {
    /// It holds bytes of variable length and is generic over them.
    generic: bool,
    min_len: usize,
}

pub fn rust(records: &[Record]) -> Result<String, String> {
    let mut shapes = BTreeMap::new();
    let mut out = String::from("// Generated from jute/*.jute by build.rs.\n\n");
    // Those first that only use known ones: what never gets its turn uses an unknown type, or itself.
    let mut waiting: Vec<&Record> = records.iter().collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut later = Vec::new();
        let mut unknown = None;
        for record in waiting {
            match shape(record, &shapes) {
                Ok(_) if shapes.contains_key(&record.name) => {
                    return Err(format!("{}: a second record `{}`", record.at, record.name));
                }
                Ok(shape) => {
                    emit(&mut out, record, &shape, &shapes);
                    shapes.insert(record.name.clone(), shape);
                }
                Err(message) => {
                    unknown.get_or_insert(message);
                    later.push(record);
                }
            }
        }
        if later.len() == before {
            return Err(unknown.expect("each record that waits has a reason"));
        }
        waiting = later;
    }
    Ok(out)
}

type Shapes = BTreeMap<String, Shape>;

fn shape(record: &Record, known: &Shapes) -> Result<Shape, String> {
    let mut shape = Shape { generic: false, min_len: 0 };
    for field in &record.fields {
        let (generic, min_len) = measure(&field.kind, known).map_err(|unknown| {
            format!("{}: field `{}` has an unknown type `{unknown}`", record.at, field.name)
        })?;
        shape.generic |= generic;
        shape.min_len += min_len;
    }
    Ok(shape)
}

fn measure(kind: &Kind, known: &Shapes) -> Result<(bool, usize), String> {
    Ok(match kind {
        Kind::Byte | Kind::Boolean => (false, 1),
        Kind::Int => (false, 4),
        Kind::Long => (false, 8),
        Kind::Ustring { .. } | Kind::Buffer => (true, 4),
        Kind::Vector { of, .. } => {
            measure(of, known)?;
            (true, 4)
        }
        Kind::Record(name) => {
            let shape = known.get(name).ok_or_else(|| name.clone())?;
            (shape.generic, shape.min_len)
        }
    })
}

fn rust_type(kind: &Kind, known: &Shapes) -> String {
    match kind {
        Kind::Byte => "u8".into(),
        Kind::Boolean => "bool".into(),
        Kind::Int => "i32".into(),
        Kind::Long => "i64".into(),
        Kind::Ustring { nullable: false } => "B".into(),
        Kind::Ustring { nullable: true } | Kind::Buffer => "Option<B>".into(),
        Kind::Vector { of, nullable: false } => format!("Vec<{}>", rust_type(of, known)),
        Kind::Vector { of, nullable: true } => format!("Option<Vec<{}>>", rust_type(of, known)),
        Kind::Record(name) if known[name].generic => format!("{name}<B>"),
        Kind::Record(name) => name.clone(),
    }
}

fn emit(out: &mut String, record: &Record, shape: &Shape, known: &Shapes) {
    let name = &record.name;
    let generics = if shape.generic { "<B>" } else { "" };
    docs(out, "", &record.docs);
    let copy = if shape.generic { "" } else { ", Copy, Default" };
    writeln!(out, "#[derive(Debug, Clone, PartialEq, Eq, Hash{copy})]\npub struct {name}{generics} {{")
        .unwrap();
    for field in &record.fields {
        docs(out, "    ", &field.docs);
        writeln!(out, "    pub {}: {},", field.name, rust_type(&field.kind, known)).unwrap();
    }
    out.push_str("}\n\n");

    let header = if shape.generic { format!("impl<B> {name}<B>") } else { format!("impl {name}") };
    writeln!(
        out,
        "{header} {{\n    /// Bytes of the smallest encoding.\n    pub const MIN_LEN: usize = {};\n}}\n",
        shape.min_len
    )
    .unwrap();

    let header =
        if shape.generic { format!("impl<B: AsRef<[u8]>> {name}<B>") } else { format!("impl {name}") };
    writeln!(out, "{header} {{").unwrap();
    writeln!(
        out,
        "    /// Appends the record to `out`.\n    #[inline]\n    pub fn encode(&self, out: &mut BytesMut) {{"
    )
    .unwrap();
    if record.fields.is_empty() {
        out.push_str("        let _ = out;\n");
    }
    for field in &record.fields {
        encode(out, "        ", &field.kind, &format!("self.{}", field.name), true);
    }
    writeln!(out, "    }}\n\n    /// How many bytes [`Self::encode`] appends.\n    pub fn encoded_len(&self) -> usize {{").unwrap();
    let parts: Vec<_> = record
        .fields
        .iter()
        .map(|field| length(&field.kind, &format!("self.{}", field.name), true))
        .collect();
    writeln!(out, "        {}\n    }}\n", if parts.is_empty() { "0".into() } else { parts.join(" + ") })
        .unwrap();
    let bound = if shape.generic { "<S: Source<Slice = B>>" } else { "<S: Source>" };
    writeln!(out, "    /// Takes the record from `from`. What is left behind it is not looked at.\n    #[inline]\n    pub fn decode{bound}(from: &mut S) -> Result<Self, DecodeError> {{").unwrap();
    if record.fields.is_empty() {
        out.push_str("        let _ = from;\n");
    }
    for Field { kind, name, .. } in &record.fields {
        writeln!(out, "        let {name} = {};", decode(kind, known)).unwrap();
    }
    let names: Vec<_> = record.fields.iter().map(|field| field.name.as_str()).collect();
    writeln!(out, "        Ok(Self {{ {} }})\n    }}\n}}\n", names.join(", ")).unwrap();
}

fn docs(out: &mut String, indent: &str, lines: &[String]) {
    for line in lines {
        writeln!(out, "{indent}/// {line}").unwrap();
    }
}

/// `place` names the value; a field (`owned`) is a place, a loop variable is a reference already.
fn encode(out: &mut String, indent: &str, kind: &Kind, place: &str, owned: bool) {
    let value = if owned { place.to_string() } else { format!("*{place}") };
    let by_ref = if owned { format!("&{place}") } else { place.to_string() };
    match kind {
        Kind::Byte => writeln!(out, "{indent}out.put_u8({value});").unwrap(),
        Kind::Boolean => writeln!(out, "{indent}out.put_u8(u8::from({value}));").unwrap(),
        Kind::Int => writeln!(out, "{indent}out.put_i32({value});").unwrap(),
        Kind::Long => writeln!(out, "{indent}out.put_i64({value});").unwrap(),
        Kind::Ustring { nullable: false } => {
            writeln!(out, "{indent}put_bytes(out, {place}.as_ref());").unwrap()
        }
        Kind::Ustring { nullable: true } | Kind::Buffer => {
            writeln!(out, "{indent}put_nullable(out, {place}.as_ref().map(AsRef::as_ref));").unwrap();
        }
        Kind::Vector { of, nullable: false } => {
            writeln!(out, "{indent}put_len(out, {place}.len());\n{indent}for item in {by_ref} {{").unwrap();
            encode(out, &format!("{indent}    "), of, "item", false);
            writeln!(out, "{indent}}}").unwrap();
        }
        Kind::Vector { of, nullable: true } => {
            writeln!(out, "{indent}match {by_ref} {{\n{indent}    None => out.put_i32(-1),\n{indent}    Some(items) => {{").unwrap();
            let inner = Kind::Vector { of: of.clone(), nullable: false };
            encode(out, &format!("{indent}        "), &inner, "items", false);
            writeln!(out, "{indent}    }}\n{indent}}}").unwrap();
        }
        Kind::Record(_) => writeln!(out, "{indent}{place}.encode(out);").unwrap(),
    }
}

fn length(kind: &Kind, place: &str, owned: bool) -> String {
    let by_ref = if owned { format!("&{place}") } else { place.to_string() };
    match kind {
        Kind::Byte | Kind::Boolean => "1".into(),
        Kind::Int => "4".into(),
        Kind::Long => "8".into(),
        Kind::Ustring { nullable: false } => format!("4 + {place}.as_ref().len()"),
        Kind::Ustring { nullable: true } | Kind::Buffer => {
            format!("4 + {place}.as_ref().map_or(0, |bytes| bytes.as_ref().len())")
        }
        Kind::Vector { of, nullable: false } => {
            let item = length(of, "item", false);
            let pattern = if item.contains("item") { "item" } else { "_" };
            format!("4 + {place}.iter().map(|{pattern}| {item}).sum::<usize>()")
        }
        Kind::Vector { of, nullable: true } => {
            let inner = Kind::Vector { of: of.clone(), nullable: false };
            format!("match {by_ref} {{ None => 4, Some(items) => {} }}", length(&inner, "items", false))
        }
        Kind::Record(_) => format!("{place}.encoded_len()"),
    }
}

fn decode(kind: &Kind, known: &Shapes) -> String {
    match kind {
        Kind::Byte => "from.byte()?".into(),
        Kind::Boolean => "from.boolean()?".into(),
        Kind::Int => "from.int()?".into(),
        Kind::Long => "from.long()?".into(),
        Kind::Ustring { nullable: false } => "from.ustring()?".into(),
        Kind::Ustring { nullable: true } => "from.ustring_opt()?".into(),
        Kind::Buffer => "from.buffer()?".into(),
        Kind::Vector { of, nullable } => {
            let (_, min_len) = measure(of, known).expect("measured before");
            let item = decode(of, known);
            let item = item.strip_suffix('?').expect("each decode can fail");
            let call = if *nullable { "vector_opt" } else { "vector" };
            format!("from.{call}({min_len}, |from| {item})?")
        }
        Kind::Record(name) => format!("{name}::decode(from)?"),
    }
}

//! The grammar of `.jute` files: `record Name { type field; … }`, `//` comments, `///` docs.
//! An error says file, line, column, and what was expected.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::character::complete::{char, multispace1, not_line_ending};
use nom::combinator::{cut, eof, map, not, opt, peek, recognize, value};
use nom::error::{ContextError, ErrorKind, ParseError, context};
use nom::multi::many0;
use nom::sequence::{delimited, pair, preceded, terminated};
use nom::{IResult, Parser};

/// A record as a file describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub name: String,
    pub docs: Vec<String>,
    pub fields: Vec<Field>,
    /// `file:line:column` of its name, for errors that only show later.
    pub at: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub kind: Kind,
    pub name: String,
    pub docs: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Byte,
    Boolean,
    Int,
    Long,
    Ustring { nullable: bool },
    Buffer,
    Vector { of: Box<Kind>, nullable: bool },
    Record(String),
}

/// Parses one file.
pub fn parse(file: &str, text: &str) -> Result<Vec<Record>, String> {
    match terminated(many0(record), preceded(blank, eof)).parse(text) {
        Ok((_, found)) => {
            Ok(found.into_iter().map(|(at, record)| Record { at: place(file, text, at), ..record }).collect())
        }
        Err(nom::Err::Error(wrong) | nom::Err::Failure(wrong)) => {
            Err(format!("{}: expected {}", place(file, text, wrong.at), wrong.wanted))
        }
        Err(nom::Err::Incomplete(_)) => Err(format!("{file}: ends too early")),
    }
}

fn place(file: &str, text: &str, rest: &str) -> String {
    let before = &text[..text.len() - rest.len()];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{file}:{line}:{column}")
}

/// Where the text went wrong, and what should have stood there.
#[derive(Debug)]
struct Wrong<'a> {
    at: &'a str,
    wanted: &'static str,
}

impl<'a> ParseError<&'a str> for Wrong<'a> {
    fn from_error_kind(at: &'a str, _: ErrorKind) -> Self {
        Wrong { at, wanted: "`record`, or the end of the file" }
    }
    fn append(_: &'a str, _: ErrorKind, other: Self) -> Self {
        other
    }
}

impl<'a> ContextError<&'a str> for Wrong<'a> {
    fn add_context(at: &'a str, wanted: &'static str, _: Self) -> Self {
        Wrong { at, wanted }
    }
}

type Parsed<'a, T> = IResult<&'a str, T, Wrong<'a>>;

fn plain_comment(input: &str) -> Parsed<'_, ()> {
    value((), (tag("//"), not(peek(char('/'))), not_line_ending)).parse(input)
}

fn blank(input: &str) -> Parsed<'_, ()> {
    value((), many0(alt((value((), multispace1), plain_comment)))).parse(input)
}

fn docs(input: &str) -> Parsed<'_, Vec<String>> {
    let line = preceded(tag("///"), not_line_ending);
    many0(map(terminated(line, blank), |text: &str| text.trim().to_string())).parse(input)
}

fn symbol<'a>(wanted: char, name: &'static str) -> impl Parser<&'a str, Output = char, Error = Wrong<'a>> {
    preceded(blank, cut(context(name, char(wanted))))
}

fn word(input: &str) -> Parsed<'_, &str> {
    let start = take_while1(|c: char| c.is_ascii_alphabetic());
    let rest = take_while(|c: char| c.is_ascii_alphanumeric() || c == '_');
    preceded(blank, recognize(pair(start, rest))).parse(input)
}

fn record(input: &str) -> Parsed<'_, (&str, Record)> {
    let (input, docs) = preceded(blank, docs).parse(input)?;
    let (input, _) = preceded(blank, tag("record")).parse(input)?;
    let (at, _) = blank(input)?;
    let (input, name) = cut(context("a record's name", word)).parse(at)?;
    let mut body = delimited(symbol('{', "`{`"), many0(field), symbol('}', "a field, or `}`"));
    let (input, fields) = body.parse(input)?;
    Ok((input, (at, Record { name: name.to_string(), docs, fields, at: String::new() })))
}

fn field(input: &str) -> Parsed<'_, Field> {
    let (input, docs) = preceded(blank, docs).parse(input)?;
    let (input, kind) = kind(input)?;
    let (input, name) = cut(context("a field's name", word)).parse(input)?;
    let (input, _) = symbol(';', "`;`").parse(input)?;
    Ok((input, Field { kind, name: name.to_string(), docs }))
}

fn kind(input: &str) -> Parsed<'_, Kind> {
    let (input, name) = word(input)?;
    let nullable = |input| map(opt(char('?')), |mark| mark.is_some()).parse(input);
    Ok(match name {
        "byte" => (input, Kind::Byte),
        "boolean" => (input, Kind::Boolean),
        "int" => (input, Kind::Int),
        "long" => (input, Kind::Long),
        "buffer" => (input, Kind::Buffer),
        "ustring" => {
            let (input, nullable) = nullable(input)?;
            (input, Kind::Ustring { nullable })
        }
        "vector" => {
            let inner = delimited(symbol('<', "`<`"), cut(context("a type", kind)), symbol('>', "`>`"));
            let (input, (of, nullable)) = pair(inner, nullable).parse(input)?;
            (input, Kind::Vector { of: Box::new(of), nullable })
        }
        other => (input, Kind::Record(other.to_string())),
    })
}

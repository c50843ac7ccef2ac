//! The page of limits as a test: `docs/limits.md` has each bound of the code, with the value that it has there.

use crate::floor_plan::sources;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/limits.md";

/// Names of constants that say that they are bounds.
const BOUNDS: [&str; 5] = ["MAX", "MOST", "AT_ONCE", "AHEAD", "HIGH_WATER"];
/// They bound nothing that anybody but the operator brings.
const NO_LIMITS: [(&str, &str); 2] =
    [("client_port/reactor.rs", "MAX_LISTENERS"), ("config/znodes.rs", "MOST")];

struct Row {
    line: String,
    value: f64,
    unit: f64,
    file: String,
    name: String,
}

/// Rows of the tables of limits: limit, value, unit, where, reason, what moves it.
fn rows() -> Vec<Row> {
    let page = fs::read_to_string(PAGE).unwrap();
    let limits = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, _, value, unit, place, reason, moved, _] = cells[..] else { return None };
        let mut place = place.split('`').filter(|part| !part.trim().is_empty());
        let (file, name) = (place.next()?.to_string(), place.next()?.to_string());
        assert!(!reason.is_empty() && !moved.is_empty(), "{line}");
        let unit = match unit {
            "" | "B" | "ms" => 1.0,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            other => panic!("no unit: {other}"),
        };
        let value = value.replace(',', "").parse().unwrap_or_else(|_| panic!("no number: {line}"));
        Some(Row { line: line.into(), value, unit, file, name })
    });
    limits.collect()
}

/// The text of a source file without its tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().to_string()
}

/// What the code says of a constant, or of a field's default.
fn found(code: &str, name: &str) -> Option<i128> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).find_map(|(at, _)| {
        let rest = code[at + name.len()..].strip_prefix(": ")?;
        if code[..at].ends_with(is_part) {
            return None;
        }
        let expression = match code[..at].ends_with("const ") {
            true => rest.split_once(" = ")?.1.split(';').next()?,
            false => rest.split([',', '\n', '}']).next()?,
        };
        value(expression, code)
    })
}

/// Whole numbers with `<<`, `*`, and other constants of the file.
fn value(expression: &str, code: &str) -> Option<i128> {
    let fold = |operator: &str, apply: fn(i128, i128) -> i128| {
        let (left, right) = expression.split_once(operator)?;
        Some(apply(value(left, code)?, value(right, code)?))
    };
    let expression = expression.trim();
    if expression.contains("<<") {
        return fold("<<", |left, right| left << right);
    }
    if expression.contains('*') {
        return fold("*", |left, right| left * right);
    }
    if !expression.starts_with(|c: char| c.is_ascii_digit()) {
        let is_name =
            |text: &str| text.chars().all(|c| c.is_ascii_uppercase() || c == '_') && !text.is_empty();
        return is_name(expression).then(|| found(code, expression)).flatten();
    }
    let digits = expression.replace('_', "");
    match digits.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

#[test]
fn the_page_of_limits_has_the_values_of_the_code() {
    let rows = rows();
    assert!(rows.len() > 50, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let code = code(&Path::new("src").join(&row.file));
        match found(&code, &row.name) {
            Some(found) if found as f64 == row.value * row.unit => {}
            other => wrong.push(format!("{PAGE} has {}\nand the code {other:?}", row.line)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_bound_of_the_code_is_on_the_page_of_limits() {
    let known: BTreeSet<_> = rows().into_iter().map(|row| (row.file, row.name)).collect();
    let is_bound = |name: &str| BOUNDS.iter().any(|part| name.contains(part));
    let inside = |file: &PathBuf| file.strip_prefix("src").unwrap().to_string_lossy().into_owned();
    let mut missing = Vec::new();
    for file in sources(Path::new("src")) {
        let short = inside(&file);
        if ["sim/", "cli/bench/", "limits.rs", "floor_plan", "english.rs"]
            .iter()
            .any(|other| short.starts_with(other))
            || short.ends_with("tests.rs")
        {
            continue;
        }
        let code = code(&file);
        let constants = code.lines().filter_map(|line| line.split_once("const ")?.1.split_once(": "));
        for (name, _) in constants.filter(|(name, kind)| is_bound(name) && !kind.starts_with(['&', '['])) {
            let known = known.contains(&(short.clone(), name.to_string()));
            if !known && !NO_LIMITS.contains(&(&short[..], name)) {
                missing.push(format!("{short} {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "missing in {PAGE}: {missing:#?}");
}

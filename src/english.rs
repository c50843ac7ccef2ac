//! Words that native readers stumble over, counted in comments and messages. A count may only fall: see `CONTRIBUTING.md`.

use crate::floor_plan::sources;
use std::fs;
use std::path::Path;

/// What to avoid, what to write instead, and how often it may still occur.
const MOST: [(&str, &str, usize); 9] = [
    ("anew", "again, from scratch", 0),
    ("so many", "this many, N, or a unit", 6),
    ("is told", "is logged, is sent, learns", 2),
    ("are told", "are logged, are sent, learn", 0),
    ("stands in", "is in", 0),
    ("stands for", "means", 0),
    ("has to be", "must be", 0),
    ("taken up", "resumed", 0),
    ("whom", "a sentence with a noun", 10),
];

/// Occurrences in comments and strings of all sources; in code no name has a blank.
fn occurrences(words: &str) -> usize {
    let others = sources(Path::new("src")).into_iter().filter(|file| !file.ends_with("english.rs"));
    let texts = others.map(|file| fs::read_to_string(file).unwrap().to_lowercase());
    texts.map(|text| count(&text, words)).sum()
}

/// Whole words only: `behind` is not in `behindhand`.
fn count(text: &str, words: &str) -> usize {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let whole = |at: &usize| {
        !is_part(text[..*at].chars().next_back()) && !is_part(text[*at + words.len()..].chars().next())
    };
    text.match_indices(words).map(|(at, _)| at).filter(whole).count()
}

#[test]
fn words_to_avoid_become_no_more() {
    let mut wrong = Vec::new();
    for (words, instead, most) in MOST {
        let found = occurrences(words);
        if found > most {
            wrong.push(format!("\"{words}\" occurs {found} times, and {most} may be: write {instead}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_whole_words_count() {
    assert_eq!(count("so many, so manyfold; also many. so many", "so many"), 2);
}

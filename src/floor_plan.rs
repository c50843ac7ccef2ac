//! The floor plan as a test: a room may look down, never up. See `ARCHITECTURE.md`.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms that it may name. Order: from the bottom up.
const MAY_NAME: [(&str, &[&str]); 22] = [
    ("jute", &[]),
    ("model", &[]),
    ("wire", &["jute", "model"]),
    ("ensemble", &["model"]),
    ("config", &["model", "ensemble"]),
    ("session", &["model"]),
    ("sasl", &["model"]),
    ("tls", &["model", "config"]),
    ("tree", &["jute", "model", "wire"]),
    ("request", &["jute", "model", "wire", "ensemble", "tree"]),
    ("zab", &["jute", "model", "wire", "ensemble"]),
    ("election", &["model", "wire", "ensemble"]),
    ("storage", &["model"]),
    ("replica", &["jute", "model", "wire", "ensemble", "session", "tree", "request", "zab", "election"]),
    ("figures", &["model", "replica"]),
    ("core", &["jute", "model", "wire", "ensemble", "config", "tree", "replica", "storage", "figures"]),
    ("link", &["jute", "model", "wire", "tree", "replica"]),
    ("peer", &["model", "wire", "ensemble", "election", "replica", "core", "link"]),
    ("conversation", &["jute", "model", "wire", "sasl", "tree", "request", "replica"]),
    ("client_port", &["model", "tree", "request", "tls", "replica", "figures", "core", "conversation"]),
    (
        "server",
        &[
            "model",
            "config",
            "tls",
            "ensemble",
            "tree",
            "request",
            "zab",
            "election",
            "replica",
            "storage",
            "figures",
            "core",
            "peer",
            "conversation",
            "client_port",
        ],
    ),
    (
        "sim",
        &[
            "jute",
            "model",
            "wire",
            "config",
            "ensemble",
            "tree",
            "request",
            "election",
            "replica",
            "storage",
            "figures",
            "core",
            "link",
            "conversation",
            "server",
        ],
    ),
];

/// The one home of each heavy dependency. `cli` stands above all and may use what it needs for its doors.
const HOMES: [(&str, &[&str]); 8] = [
    ("mio", &["client_port", "cli"]),
    ("tokio", &["peer", "cli"]),
    ("tokio_util", &["peer"]),
    ("memmap2", &["storage"]),
    ("rustls", &["tls", "client_port"]),
    ("metrics", &["figures"]),
    ("std::fs", &["sim", "storage", "tls", "client_port", "cli"]),
    ("std::env", &["cli", "client_port"]),
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The names behind `crate::` in a source text, outside of comments.
fn named_rooms(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut named = Vec::new();
    for line in code {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            named.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    named
}

fn violations(room: &str, may_name: &[&str], text: &str) -> Vec<String> {
    let strange = |named: &String| named != room && !may_name.contains(&named.as_str()) && !named.is_empty();
    named_rooms(text).into_iter().filter(strange).collect()
}

#[test]
fn no_room_names_one_above_it() {
    let mut wrong = Vec::new();
    for (room, may_name) in MAY_NAME {
        for file in sources(&Path::new("src").join(room)) {
            let text = fs::read_to_string(&file).unwrap();
            for named in violations(room, may_name, &text) {
                wrong.push(format!("{}: {room} may not name {named}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_import_upward_is_seen() {
    assert_eq!(
        violations("tree", &["jute"], "use crate::replica::Replica;\nuse crate::jute::Reader;"),
        ["replica"]
    );
    assert_eq!(violations("tree", &["jute"], "// crate::replica is above\nuse crate::tree::Node;"), [""; 0]);
}

#[test]
fn heavy_dependencies_stay_at_home() {
    let mut wrong = Vec::new();
    for (dependency, homes) in HOMES {
        for file in sources(Path::new("src")) {
            let room = file.components().nth(1).unwrap().as_os_str().to_string_lossy().into_owned();
            if homes.contains(&room.as_str()) || file.ends_with("floor_plan.rs") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let used = text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
                line.contains(&format!("use {dependency}")) || line.contains(&format!(" {dependency}::"))
            });
            if used {
                wrong.push(format!("{} uses {dependency}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_stands_in_the_plan() {
    for entry in fs::read_dir("src").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let known = MAY_NAME.iter().any(|(room, _)| *room == name);
        assert!(!path.is_dir() || known || name == "cli", "{name} has no place in the floor plan");
    }
}

#[test]
fn unsafe_code_has_one_home() {
    for file in sources(Path::new("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let is_home = file.ends_with("storage/segment.rs") || file.ends_with("floor_plan.rs");
        assert!(is_home || !text.contains("unsafe {"), "{}", file.display());
    }
}

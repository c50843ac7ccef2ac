//! The floor plan as a test: a room may look down, never up. See `ARCHITECTURE.md`.

mod paths;

use paths::Names;
use std::collections::BTreeSet;
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
            "jute",
            "model",
            "wire",
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

/// The homes of heavy dependencies, and of all that has an effect: files, clocks, threads, sockets, log lines. A room that
/// is not named here is a value. `cli` is above all rooms and may use what it needs.
const HOMES: [(&str, &[&str]); 20] = [
    ("mio", &["client_port", "cli"]),
    ("tokio", &["peer", "cli"]),
    ("tokio_util", &["peer"]),
    ("memmap2", &["storage"]),
    ("rustls", &["tls", "client_port"]),
    ("metrics", &["figures"]),
    ("socket2", &["peer", "server"]),
    ("rustix", &["storage", "client_port", "server"]),
    ("libc", &["storage", "sim", "cli"]),
    ("tracing", &["tls", "core", "peer", "client_port", "server", "sim", "cli"]),
    ("std::fs", &["storage", "tls", "client_port", "sim", "cli"]),
    ("std::os", &["storage", "client_port", "peer", "server", "cli"]),
    ("std::env", &["client_port", "cli"]),
    ("std::process", &["storage", "server", "sim", "cli"]),
    ("std::thread", &["storage", "core", "peer", "client_port", "server", "sim", "cli"]),
    ("std::time::Instant", &["storage", "core", "peer", "client_port", "server", "sim", "cli"]),
    ("std::time::SystemTime", &["core", "client_port"]),
    ("std::net::TcpListener", &["peer", "client_port", "server", "cli"]),
    ("std::net::TcpStream", &["peer", "client_port", "server", "cli"]),
    ("std::net::UdpSocket", &[]),
];

pub fn sources(dir: &Path) -> Vec<PathBuf> {
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

/// Every path that a room's file names, with the room and the file. `sim/main.rs` is a program and no part of its room.
fn all_named() -> Vec<(String, PathBuf, BTreeSet<Names>)> {
    let mut found = Vec::new();
    for file in sources(Path::new("src")) {
        let inside: Vec<_> =
            file.with_extension("").iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect();
        if matches!(inside[0].as_str(), "english" | "floor_plan" | "limits" | "main")
            || file.ends_with("sim/main.rs")
        {
            continue;
        }
        let module = inside.iter().filter(|part| !matches!(part.as_str(), "mod" | "lib")).cloned().collect();
        let text = fs::read_to_string(&file).unwrap();
        found.push((inside[0].clone(), file, paths::named(module, &text)));
    }
    found
}

/// The rooms of `named` that are neither `room` itself nor in its list.
fn forbidden_rooms(room: &str, may_name: &[&str], named: &BTreeSet<Names>) -> BTreeSet<String> {
    let rooms = named.iter().filter(|path| path[0] == "crate").filter_map(|path| path.get(1));
    rooms.filter(|named| *named != room && !may_name.contains(&named.as_str())).cloned().collect()
}

/// Whether a path is `home` or something in it, or a `*` that brings it in.
fn is_in(path: &Names, home: &str) -> bool {
    let mut home = home.split("::");
    for name in path {
        match home.next() {
            None => return true,
            Some(wanted) if wanted == name => {}
            Some(_) => return name == "*",
        }
    }
    home.next().is_none()
}

#[test]
fn no_room_names_one_above_it() {
    let mut wrong = Vec::new();
    for (room, file, named) in all_named() {
        let Some((_, may_name)) = MAY_NAME.iter().find(|(known, _)| *known == room) else { continue };
        for other in forbidden_rooms(&room, may_name, &named) {
            wrong.push(format!("{}: {room} may not name {other}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn dependencies_and_effects_stay_at_home() {
    let mut wrong = Vec::new();
    for (room, file, named) in all_named() {
        for (home, rooms) in HOMES.iter().filter(|(_, rooms)| !rooms.contains(&room.as_str())) {
            for path in named.iter().filter(|path| is_in(path, home)) {
                wrong.push(format!(
                    "{} uses {}: that belongs to {}",
                    file.display(),
                    path.join("::"),
                    rooms.join(", ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The forbidden rooms of a text that is `src/tree/acls.rs`, where `jute` may be named.
fn seen(text: &str) -> Vec<String> {
    forbidden_rooms("tree", &["jute"], &paths::named(vec!["tree".into(), "acls".into()], text))
        .into_iter()
        .collect()
}

#[test]
fn every_way_to_name_a_room_above_is_seen() {
    for text in [
        "use crate::replica::Replica;",
        "use crate::{jute::Reader, replica::Replica};",
        "use crate::{jute::{Reader, Writer}, replica};",
        "use crate::{\n    jute,\n    replica::{self, Replica},\n};",
        "use crate::replica as above;",
        "use super::super::replica::Replica;",
        "use super::super::{jute, replica};",
        "pub(crate) use crate::replica::Replica;",
        "fn f() { g(crate::replica::Replica::new()) }",
        "fn f() -> Option<crate::replica::Replica> { None }",
        "fn f() { super::super::replica::run() }",
        "mod tests { use super::super::super::replica::Replica; }",
        "mod tests { fn f() {} }\nuse super::super::replica::Replica;",
        "fn f() { above::replica::run() }\nuse super::super as above;",
        "const QUOTE: char = '\"'; use crate::replica::Replica; const OTHER: char = '\"';",
        "fn f<'a>(x: &'a str) -> &'a str { crate::replica::name(x) }",
        "macro_rules! m { () => { $crate::replica::run() } }",
    ] {
        assert_eq!(seen(text), ["replica"], "{text}");
    }
    assert_eq!(seen("use crate::*;"), ["*"]);
}

#[test]
fn what_names_no_room_above_is_allowed() {
    for text in [
        "use crate::jute::Reader;",
        "use crate::{jute, tree::Node};",
        "use super::replica::Replica; // tree::replica",
        "mod tests { use super::super::replica::Replica; }",
        "// crate::replica is above",
        "/* crate::replica */ //! crate::replica",
        r#"const TEXT: &str = "crate::replica \" crate::replica";"#,
        "const TEXT: &str = r#\"crate::replica\"#;",
        "fn f() { other::replica::run() }",
        "fn f<'a>() -> impl Iterator<Item = &'a u8> + use<'a> { jute() }",
    ] {
        assert_eq!(seen(text), [""; 0], "{text}");
    }
}

#[test]
fn every_way_to_name_a_dependency_is_seen() {
    let uses = |home, text| paths::named(vec!["tree".into()], text).iter().any(|path| is_in(path, home));
    for text in [
        "use std::fs;",
        "use std::{collections::HashMap, fs};",
        "use std::{fs::{self, File}, io};",
        "use std::fs as files;",
        "use std::*;",
        "fn f() { g(std::fs::read(file)) }",
        "fn f() { ::std::fs::read(file) }",
        "use std as library; fn f() { library::fs::read(file) }",
    ] {
        assert!(uses("std::fs", text), "{text}");
    }
    assert!(uses("mio", "fn f() { f(mio::Token(1)) }"));
    assert!(uses("std::time::Instant", "use std::time; fn f() { time::Instant::now(); }"));
    assert!(uses("std::time::Instant", "use std::time::*;"));
    assert!(!uses("std::time::Instant", "use std::time::Duration;"));
    assert!(!uses("std::fs", "use std::fmt; fn f() { fmt::fs() }"));
    assert!(!uses("metrics", "use crate::figures::metrics::Name;"));
}

#[test]
fn every_room_is_in_the_plan() {
    for entry in fs::read_dir("src").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let known = MAY_NAME.iter().any(|(room, _)| *room == name);
        assert!(
            !path.is_dir() || known || matches!(name.as_str(), "cli" | "floor_plan"),
            "{name} has no place in the floor plan"
        );
    }
}

#[test]
fn unsafe_code_has_its_homes() {
    for file in sources(Path::new("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let homes = ["storage/segment.rs", "storage/bus_error.rs", "floor_plan.rs"];
        let is_home = homes.iter().any(|home| file.ends_with(home));
        assert!(is_home || !text.contains("unsafe {"), "{}", file.display());
    }
}

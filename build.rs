//! Compiles `jute/*.jute` into the records of `zabra::jute::records`.

#[path = "jute/compiler/emit.rs"]
mod emit;
#[path = "jute/compiler/grammar.rs"]
mod grammar;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    println!("cargo:rerun-if-changed=jute");
    if let Err(message) = compile(Path::new("jute")) {
        eprintln!("error: {message}");
        process::exit(1);
    }
}

fn compile(dir: &Path) -> Result<(), String> {
    let unreadable = |what: &Path, error| format!("{}: {error}", what.display());
    let entries = fs::read_dir(dir).map_err(|error| unreadable(dir, error))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jute"));
    paths.sort();
    let mut records = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
        records.extend(grammar::parse(&path.display().to_string(), &text)?);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("records.rs");
    fs::write(&out, emit::rust(&records)?).map_err(|error| unreadable(&out, error))
}

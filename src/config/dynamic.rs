//! The files beside `zoo.cfg` that hold the ensemble's configuration once it may change
//! (`QuorumPeerConfig.writeDynamicConfig`, `editStaticConfig`).

use crate::ensemble::Ensemble;
use std::path::{Path, PathBuf};

/// `zoo.cfg.dynamic.<version>`, or without a version `zoo.cfg.dynamic.next`.
pub fn dynamic_file(config: &Path, version: Option<i64>) -> PathBuf {
    let mut name = config.as_os_str().to_owned();
    name.push(match version {
        Some(version) => format!(".dynamic.{version:x}"),
        None => ".dynamic.next".into(),
    });
    name.into()
}

/// The version in a dynamic file's name.
pub(super) fn version_in_name(file: &Path) -> Option<i64> {
    i64::from_str_radix(file.extension()?.to_str()?, 16).ok()
}

/// A dynamic file's text: sorted lines, without a line end after the last. A configuration that is only proposed keeps its version.
pub fn dynamic_text(ensemble: &Ensemble, with_version: bool) -> String {
    let text = ensemble.to_string();
    let mut lines: Vec<&str> =
        text.lines().filter(|line| with_version || !line.starts_with("version=")).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The text of `zoo.cfg` with its ensemble moved into `dynamic`. Where the dynamic file has the client's address too,
/// that goes from here.
pub fn point_to(old: &str, dynamic: &Path, without_client: bool) -> String {
    let moved = |line: &str| {
        let key = line.trim_start();
        ["server.", "group.", "weight.", "dynamicConfigFile", "peerType"]
            .iter()
            .any(|start| key.starts_with(start))
            || (without_client
                && key.starts_with("clientPort")
                && !key.starts_with("clientPortListenBacklog"))
    };
    let mut text = String::new();
    for line in old.lines().filter(|line| !moved(line)) {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&format!("dynamicConfigFile={}\n", dynamic.display()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_static_file_keeps_everything_but_the_ensemble() {
        let old = "# mine\ntickTime=2000\nserver.1=a:1:2\ngroup.1=1\nclientPort=2181\nclientPortAddress=x\n";
        let dynamic = Path::new("/c/zoo.cfg.dynamic.1f");
        let kept = "# mine\ntickTime=2000\nclientPort=2181\nclientPortAddress=x\n";
        let named = "dynamicConfigFile=/c/zoo.cfg.dynamic.1f\n";
        let new = point_to(old, dynamic, false);
        assert_eq!(new, format!("{kept}{named}"));
        assert_eq!(point_to(&new, dynamic, true), format!("# mine\ntickTime=2000\n{named}"));
    }

    #[test]
    fn names_and_text_are_javas() {
        let config = Path::new("/c/zoo.cfg");
        assert_eq!(dynamic_file(config, Some(0x1_0000_002a)), Path::new("/c/zoo.cfg.dynamic.10000002a"));
        assert_eq!(dynamic_file(config, None), Path::new("/c/zoo.cfg.dynamic.next"));
        assert_eq!(version_in_name(Path::new("zoo.cfg.dynamic.10000002a")), Some(0x1_0000_002a));
        assert_eq!(version_in_name(Path::new("zoo.cfg.dynamic")), None);
        let ensemble = Ensemble::parse("server.2=b:1:2\nserver.1=a:1:2;3\nversion=7").unwrap();
        assert_eq!(
            dynamic_text(&ensemble, false),
            "server.1=a:1:2:participant;0.0.0.0:3\nserver.2=b:1:2:participant"
        );
        assert!(dynamic_text(&ensemble, true).ends_with("\nversion=7"));
    }
}

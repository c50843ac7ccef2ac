//! `zabra check`: reads a configuration as a server does, and says what would come of it.

use super::outcome::{Found, ToolError};
use super::serve::{configuration, identity};
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Reads the files that a server reads at its start (zoo.cfg, its dynamic part, myid, SERVER_JVMFLAGS, JVMFLAGS), and \
    resolves the names in them. Nothing is written, and no port is opened.\n\n\
    Exit codes: 0, a server starts with it; 1, it does not, or --deny-warnings was given and there are some; 2, the output could not \
    be written."
)]
pub struct CheckArgs {
    /// A zoo.cfg.
    config: PathBuf,
    /// Fail where a server would start with warnings: of keys that have no effect here, or another one than with Java.
    #[arg(long)]
    deny_warnings: bool,
}

pub fn run(args: &CheckArgs, out: &mut impl Write) -> Result<Found, ToolError> {
    let config = match configuration(Some(&args.config)) {
        Ok(config) => config,
        Err(message) => {
            writeln!(out, "error: {message}")?;
            return Ok(Found::Fault);
        }
    };
    writeln!(out, "{}", identity(&config))?;
    for (kind, lines) in [("warning", &config.warnings), ("note", &config.notes)] {
        for line in lines {
            writeln!(out, "{kind}: {}: {}", line.place, line.text)?;
        }
    }
    let count = config.warnings.len();
    let what = match count {
        0 => "no warnings".into(),
        1 => "1 warning: what it names does not do here what it does with Java".into(),
        _ => format!("{count} warnings: what they name does not do here what it does with Java"),
    };
    writeln!(out, "{}: a server starts with it; {what}", args.config.display())?;
    Ok(Found::fault_if(args.deny_warnings && count > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &str, deny_warnings: bool) -> (Found, String) {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("zoo.cfg");
        std::fs::write(&config, format!("dataDir={}\n{lines}", dir.path().display())).unwrap();
        let mut out = Vec::new();
        let found = run(&CheckArgs { config, deny_warnings }, &mut out).unwrap();
        (found, String::from_utf8(out).unwrap())
    }

    #[test]
    fn it_says_whether_a_server_starts_and_what_differs_from_java() {
        let (found, text) = check("clientPort=2181\n", true);
        assert!(
            found == Found::Clean && text.contains("server=standalone") && text.contains("no warnings"),
            "{text}"
        );
        let warned = "clientPort=2181\nskipACL=yes\n";
        let (found, text) = check(warned, false);
        assert!(
            found == Found::Clean && text.contains("zoo.cfg:3: skipACL") && text.contains("1 warning:"),
            "{text}"
        );
        assert_eq!(check(warned, true).0, Found::Fault);
        let (found, text) = check("clientPort=many\n", false);
        assert!(found == Found::Fault && text.starts_with("error: ") && text.contains("zoo.cfg:2"), "{text}");
    }
}

//! Where memory is scarce, the allocator has to give back at once what is free: it keeps that for a second otherwise, and has memory in
//! pieces of two megabytes. Under load that is more than all that is in use.

use crate::server::Memory;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What mimalloc reads once, before `main`: milliseconds after which free memory goes back; no huge pages.
const DELAY: &str = "MIMALLOC_PURGE_DELAY";
const HUGE_PAGES: &str = "MIMALLOC_ALLOW_THP";

/// Begins this process again with these settings, unless there is memory enough or somebody has set them. It stays the same process to
/// all others.
pub fn begin_thriftily(memory: &Memory) {
    if !memory.is_scarce() || std::env::var_os(DELAY).is_some() {
        return;
    }
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let begin =
        |program| Command::new(program).arg0(name).args(args).env(DELAY, "10").env(HUGE_PAGES, "0").exec();
    let error = match std::env::current_exe() {
        Ok(program) => begin(program),
        Err(error) => error,
    };
    tracing::warn!(
        "cannot make the allocator thrifty: {error}. Set {DELAY}=10 and {HUGE_PAGES}=0: this process may have little memory"
    );
}

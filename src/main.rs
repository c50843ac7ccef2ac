//! The one binary.

use clap::Parser;
use std::process::ExitCode;

/// A million small allocations, freed by other threads than made them: what this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    zabra::cli::run(zabra::cli::Cli::parse())
}

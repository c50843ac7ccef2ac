//! What the system lets this process open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open descriptors as far as this process may, and returns it.
pub(super) fn raise_descriptors() -> u64 {
    let Rlimit { current: before, maximum } = getrlimit(Resource::Nofile);
    if before != maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => {
                let (before, now) = (told(before), told(maximum));
                tracing::info!("raised the limit of open descriptors from {before} to {now}, the hard one");
            }
            Err(error) => tracing::warn!(
                "the limit of open descriptors stays at {}, the hard one is {}: {error}",
                told(before),
                told(maximum)
            ),
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn told(limit: Option<u64>) -> String {
    limit.map_or("none".into(), |limit| limit.to_string())
}

//! Addresses that clients connect to, as they are in a file: which of them mean the same.

use std::net::IpAddr;

/// Whether all of the machine's addresses are meant.
pub fn is_any(host: &str) -> bool {
    host == "*" || literal(host).is_some_and(|address| address.is_unspecified())
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

/// Whether two hosts have an address in common, by what `resolve` knows of names.
pub(super) fn is_same(one: &str, other: &str, resolve: &dyn Fn(&str) -> Vec<IpAddr>) -> bool {
    let addresses = |host: &str| literal(host).map_or_else(|| resolve(host), |address| vec![address]);
    one == other || addresses(one).iter().any(|address| addresses(other).contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_and_not_their_texts() {
        let names = |host: &str| match host {
            "localhost" => vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()],
            _ => Vec::new(),
        };
        let same = |one, other| is_same(one, other, &names);
        assert!(same("localhost", "127.0.0.1") && same("0:0:0:0:0:0:0:1", "localhost"));
        assert!(same("[::1]", "::1") && same("unknown", "unknown"));
        assert!(
            !same("localhost", "127.0.0.2") && !same("unknown", "127.0.0.1") && !same("unknown", "another")
        );
    }

    #[test]
    fn each_wildcard_means_all_addresses() {
        for host in ["0.0.0.0", "::", "[::]", "0:0:0:0:0:0:0:0", "*"] {
            assert!(is_any(host), "{host}");
        }
        for host in ["127.0.0.1", "::1", "localhost", "", "0.0.0.1"] {
            assert!(!is_any(host), "{host}");
        }
    }
}

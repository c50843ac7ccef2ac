//! Reads and writes the persisted `ephemeralOwner` of a znode (`EphemeralType`).

use super::SessionId;

/// The owner value of a container znode.
pub const CONTAINER: i64 = i64::MIN;
/// The longest ttl, in milliseconds: 40 bits.
pub const MAX_TTL_MS: i64 = 0xff_ffff_ffff;

const EXTENDED_MASK: i64 = 0xff00_0000_0000_0000_u64 as i64;
const OLD_353_MASK: i64 = i64::MIN;

/// What keeps a znode alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nobody: it stays until it is deleted.
    Persistent,
    /// A session: it goes with it.
    Session(SessionId),
    /// Its children: it goes some time after the last of them.
    Container,
    /// A time to live in milliseconds since its last change.
    Ttl(i64),
}

/// How the kinds of owners are recognized: `zookeeper.extendedTypesEnabled` and `zookeeper.emulate353TTLNodes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnerRules {
    pub extended_types: bool,
    pub emulate_353: bool,
}

impl Owner {
    pub fn decode(raw: i64, rules: OwnerRules) -> Owner {
        if raw == 0 {
            return Owner::Persistent;
        }
        if raw == CONTAINER {
            return Owner::Container;
        }
        if rules.extended_types {
            if rules.emulate_353 && raw < 0 && raw & EXTENDED_MASK != EXTENDED_MASK {
                return Owner::Ttl(raw & !OLD_353_MASK);
            }
            if raw & EXTENDED_MASK == EXTENDED_MASK {
                return Owner::Ttl(raw & MAX_TTL_MS);
            }
        }
        Owner::Session(SessionId(raw))
    }

    pub fn encode(self) -> i64 {
        match self {
            Owner::Persistent => 0,
            Owner::Session(id) => id.0,
            Owner::Container => CONTAINER,
            Owner::Ttl(ms) => EXTENDED_MASK | ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENDED: OwnerRules = OwnerRules { extended_types: true, emulate_353: false };

    #[test]
    fn owners_survive_a_round_trip() {
        for owner in [Owner::Persistent, Owner::Container, Owner::Ttl(1), Owner::Ttl(MAX_TTL_MS)] {
            assert_eq!(Owner::decode(owner.encode(), EXTENDED), owner);
        }
        for server in 0..=254_i64 {
            let owner = Owner::Session(SessionId((server << 56) | 0x1234));
            assert_eq!(Owner::decode(owner.encode(), EXTENDED), owner, "server id {server}");
        }
    }

    #[test]
    fn ttl_owners_read_as_sessions_while_extended_types_are_off() {
        let raw = Owner::Ttl(5000).encode();
        assert_eq!(Owner::decode(raw, OwnerRules::default()), Owner::Session(SessionId(raw)));
    }
}

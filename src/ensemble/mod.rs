//! Membership: who is in the ensemble, in which role, and which sets of servers decide
//! (`server/quorum/flexible`). A value; its text is what NEWLEADER, notifications and `/zookeeper/config` carry.

mod error;
mod member;
pub mod properties;
mod view;

pub use error::{ParseError, ValueError};
pub use member::{ClientAddress, Member, PeerAddress, Role};
pub use view::View;

use crate::model::ServerId;
use std::collections::BTreeMap;
use std::fmt;

/// One configuration of the ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensemble {
    members: BTreeMap<ServerId, Member>,
    groups: Option<Groups>,
    /// The zxid that made it; 0 for one that comes from files alone.
    version: i64,
}

/// Hierarchical quorums: a group is won by more than half of its weight, a quorum needs more than half of the groups
/// that have any.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Groups {
    of: BTreeMap<ServerId, i64>,
    weights: BTreeMap<ServerId, i64>,
}

impl Ensemble {
    /// Every participant's voice counts the same.
    pub fn majority(members: impl IntoIterator<Item = Member>) -> Self {
        let members = members.into_iter().map(|member| (member.id, member)).collect();
        Self { members, groups: None, version: 0 }
    }

    /// Reads lines of `server.N`, `group.G`, `weight.N`, `version`, as a dynamic file, a NEWLEADER packet or
    /// `/zookeeper/config` hold them.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut found = Lines::default();
        for property in properties::parse(text) {
            found.take(&property.key, &property.value)?;
        }
        found.ensemble()
    }

    /// The same with another version.
    pub fn with_version(&self, version: i64) -> Self {
        Self { version, ..self.clone() }
    }

    pub fn version(&self) -> i64 {
        self.version
    }

    pub fn member(&self, id: ServerId) -> Option<&Member> {
        self.members.get(&id)
    }

    pub fn member_mut(&mut self, id: ServerId) -> Option<&mut Member> {
        self.members.get_mut(&id)
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub fn voters(&self) -> impl Iterator<Item = ServerId> {
        self.members.values().filter(|member| member.role == Role::Participant).map(|member| member.id)
    }

    pub fn is_voter(&self, id: ServerId) -> bool {
        self.members.get(&id).is_some_and(|member| member.role == Role::Participant)
    }

    pub fn is_observer(&self, id: ServerId) -> bool {
        self.members.get(&id).is_some_and(|member| member.role == Role::Observer)
    }

    /// Whether sets of servers count by their number alone: what incremental reconfiguration asks for.
    pub fn is_majority(&self) -> bool {
        self.groups.is_none()
    }

    /// A server of weight 0 never leads.
    pub fn weight(&self, id: ServerId) -> i64 {
        self.groups.as_ref().map_or(1, |groups| groups.weight(id))
    }

    /// Whether the servers that `has` names decide. Only voters count.
    pub fn has_quorum(&self, has: impl Fn(ServerId) -> bool) -> bool {
        match &self.groups {
            None => {
                let (mut with, mut all) = (0, 0);
                for id in self.voters() {
                    all += 1;
                    with += usize::from(has(id));
                }
                2 * with > all
            }
            Some(groups) => {
                let mut sums: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
                for id in self.voters() {
                    let Some(group) = groups.of.get(&id) else { continue };
                    let (with, all) = sums.entry(*group).or_default();
                    let weight = groups.weight(id);
                    *all += weight;
                    *with += if has(id) { weight } else { 0 };
                }
                sums.retain(|_, (_, all)| *all > 0);
                let won = sums.values().filter(|(with, all)| *with > all / 2).count();
                won > sums.len() / 2
            }
        }
    }

    /// The largest value that a quorum has reached, where `upto` tells how far each server is: a zxid, a time.
    pub fn reached_by_quorum<T: Ord + Copy>(&self, upto: impl Fn(ServerId) -> T) -> Option<T> {
        let mut reached: Vec<(T, ServerId)> = self.voters().map(|id| (upto(id), id)).collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        let is_enough = |first: usize| match &self.groups {
            None => 2 * (first + 1) > reached.len(),
            Some(_) => self.has_quorum(|id| reached[..=first].iter().any(|(_, with)| *with == id)),
        };
        (0..reached.len()).find(|first| is_enough(*first)).map(|first| reached[first].0)
    }

    /// Java's equality of configurations: the same version, or the same members and groups.
    pub fn is_same(&self, other: &Self) -> bool {
        self.version == other.version || (self.members == other.members && self.groups == other.groups)
    }
}

impl Groups {
    fn weight(&self, id: ServerId) -> i64 {
        self.weights.get(&id).copied().unwrap_or(1)
    }
}

/// The ensemble's text: servers, groups, weights, version; no line end after the last.
impl fmt::Display for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for member in self.members.values() {
            writeln!(f, "server.{}={member}", member.id)?;
        }
        if let Some(groups) = &self.groups {
            let mut members: BTreeMap<i64, Vec<String>> = BTreeMap::new();
            for (id, group) in &groups.of {
                members.entry(*group).or_default().push(id.to_string());
            }
            for (group, ids) in members {
                writeln!(f, "group.{group}={}", ids.join(":"))?;
            }
            for id in groups.of.keys() {
                writeln!(f, "weight.{id}={}", groups.weight(*id))?;
            }
        }
        write!(f, "version={:x}", self.version)
    }
}

/// The lines of an ensemble as they are met, alone or among the other keys of a zoo.cfg.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    members: BTreeMap<ServerId, Member>,
    of: BTreeMap<ServerId, i64>,
    weights: BTreeMap<ServerId, i64>,
    is_hierarchical: bool,
    version: i64,
}

impl Lines {
    /// Takes one line.
    pub fn take(&mut self, key: &str, value: &str) -> Result<(), ParseError> {
        let of_key = |kind, text: &str| {
            text.trim().parse().map_err(|_| ParseError::KeyNumber { key: key.into(), kind })
        };
        let wrong = |wrong| ParseError::Value { key: key.into(), value: value.into(), wrong };
        match key.split_once('.') {
            Some(("server", id)) => {
                let id = ServerId(of_key("server", id)?);
                self.members.insert(id, Member::parse(id, value).map_err(wrong)?);
            }
            Some(("group", group)) => {
                let group = of_key("group", group)?;
                self.is_hierarchical = true;
                for id in value.split(':') {
                    let id = ServerId(id.trim().parse().map_err(|_| wrong(ValueError::Group))?);
                    if self.of.insert(id, group).is_some() {
                        return Err(wrong(ValueError::InTwoGroups(id)));
                    }
                }
            }
            Some(("weight", id)) => {
                self.is_hierarchical = true;
                let weight: i64 = value.trim().parse().map_err(|_| wrong(ValueError::Number))?;
                if !(0..=i64::from(i32::MAX)).contains(&weight) {
                    return Err(wrong(ValueError::Weight));
                }
                self.weights.insert(ServerId(of_key("weight", id)?), weight);
            }
            None if key == "version" => {
                self.version = i64::from_str_radix(value, 16).map_err(|_| wrong(ValueError::Version))?;
            }
            _ => return Err(ParseError::UnknownKey { key: key.into() }),
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn has_version(&self) -> bool {
        self.version != 0
    }

    pub fn ensemble(&self) -> Result<Ensemble, ParseError> {
        let members = self.members.clone();
        let groups = if self.is_hierarchical {
            let lone = members
                .values()
                .find(|member| member.role == Role::Participant && !self.of.contains_key(&member.id));
            if let Some(lone) = lone {
                return Err(ParseError::InNoGroup(lone.id));
            }
            let weight = |id: &ServerId| (*id, self.weights.get(id).copied().unwrap_or(1));
            Some(Groups { of: self.of.clone(), weights: self.of.keys().map(weight).collect() })
        } else {
            None
        };
        Ok(Ensemble { members, groups, version: self.version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Zxid;
    use std::collections::BTreeSet;

    const THREE: &str = "server.1=a:1:2:participant;0.0.0.0:3\nserver.2=[0:0:0:0:0:0:0:1]:1:2:participant\n\
                         server.3=c:1:2:observer\nversion=100000000";

    #[test]
    fn the_text_is_javas() {
        let ensemble =
            Ensemble::parse("server.2=[::1]:1:2\nserver.1=a:1:2;3\nserver.3=c:1:2:observer").unwrap();
        assert_eq!(ensemble.with_version(1 << 32).to_string(), THREE);
        assert_eq!(Ensemble::parse(THREE).unwrap(), ensemble.with_version(1 << 32));
    }

    #[test]
    fn more_than_half_of_the_voters_decide_and_observers_do_not_count() {
        let ensemble = Ensemble::parse(THREE).unwrap();
        let quorum = |ids: &[i64]| ensemble.has_quorum(|id| ids.contains(&id.0));
        assert!(quorum(&[1, 2]));
        assert!(!quorum(&[1]) && !quorum(&[1, 3]) && !quorum(&[1, 9]) && !quorum(&[]));
    }

    #[test]
    fn groups_decide_by_weight_and_a_group_without_weight_has_no_voice() {
        let servers: String = (1..=9).map(|id| format!("server.{id}=h{id}:1:2\n")).collect();
        let groups = "group.1=1:2:3\ngroup.2=4:5:6\ngroup.3=7:8:9\n";
        let ensemble = Ensemble::parse(&format!("{servers}{groups}")).unwrap();
        let quorum = |ensemble: &Ensemble, ids: &[i64]| ensemble.has_quorum(|id| ids.contains(&id.0));
        assert!(quorum(&ensemble, &[1, 2, 4, 5]));
        assert!(!quorum(&ensemble, &[1, 2, 3, 4, 7]));
        let weights = "weight.7=0\nweight.8=0\nweight.9=0\nweight.1=5\n";
        let ensemble = Ensemble::parse(&format!("{servers}{groups}{weights}")).unwrap();
        assert!(quorum(&ensemble, &[1, 4, 5]));
        assert!(!quorum(&ensemble, &[2, 3, 4, 5]));
        assert_eq!((ensemble.weight(ServerId(7)), ensemble.weight(ServerId(1))), (0, 5));
        assert_eq!(Ensemble::parse(&ensemble.to_string()).unwrap(), ensemble);
    }

    #[test]
    fn any_two_quorums_share_a_voter() {
        let texts = [
            "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2\n".to_string(),
            (1..=5).map(|id| format!("server.{id}=h:1{id}:2{id}\n")).collect::<String>()
                + "group.1=1:2:3\ngroup.2=4:5\nweight.1=2\n",
        ];
        for text in texts {
            let ensemble = Ensemble::parse(&text).unwrap();
            let voters: Vec<ServerId> = ensemble.voters().collect();
            let sets = 1_u32 << voters.len();
            let quorums: Vec<BTreeSet<ServerId>> = (0..sets)
                .map(|bits| {
                    let chosen = voters.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
                    chosen.map(|(_, id)| *id).collect::<BTreeSet<_>>()
                })
                .filter(|set| ensemble.has_quorum(|id| set.contains(&id)))
                .collect();
            assert!(!quorums.is_empty());
            for one in &quorums {
                assert!(quorums.iter().all(|other| !one.is_disjoint(other)), "{text}");
            }
        }
    }

    #[test]
    fn the_zxid_of_a_quorum_is_the_median_of_a_majority() {
        let ensemble = Ensemble::parse("server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2").unwrap();
        let upto = |id: ServerId| Zxid([0, 7, 3, 5][id.0 as usize]);
        assert_eq!(ensemble.reached_by_quorum(upto), Some(Zxid(5)));
    }

    /// A server that runs the release before writes `[::1]`: to both releases the two texts are one configuration.
    #[test]
    fn an_ipv6_address_has_one_text_however_it_is_written() {
        for (written, text) in [
            ("server.1=[::1]:1:2;[::]:3", "server.1=[0:0:0:0:0:0:0:1]:1:2:participant;[0:0:0:0:0:0:0:0]:3"),
            (
                "server.1=[2001:DB8::00a0]:1:2;[fe80::1%lo]:3",
                "server.1=[2001:db8:0:0:0:0:0:a0]:1:2:participant;[fe80:0:0:0:0:0:0:1%lo]:3",
            ),
            ("server.1=[::ffff:10.0.0.1]:1:2", "server.1=10.0.0.1:1:2:participant"),
        ] {
            let ensemble = Ensemble::parse(written).unwrap();
            assert_eq!(ensemble.to_string(), format!("{text}\nversion=0"), "{written}");
            assert_eq!(Ensemble::parse(text).unwrap(), ensemble, "{written}");
        }
    }

    #[test]
    fn what_is_no_ensemble_is_named() {
        let of_key = |key: &str, kind| ParseError::KeyNumber { key: key.into(), kind };
        let value =
            |key: &str, value: &str, wrong| ParseError::Value { key: key.into(), value: value.into(), wrong };
        let one = |text: &str, wrong| value("server.1", text, wrong);
        for (text, wanted) in [
            ("server.1=nonsense", one("nonsense", ValueError::Server)),
            ("server.1=a:1:x", one("a:1:x", ValueError::Server)),
            ("server.1=a:1:99999", one("a:1:99999", ValueError::Port(99_999))),
            ("server.1=a:-1:2", one("a:-1:2", ValueError::Port(-1))),
            ("server.1=a:1:2;65536", one("a:1:2;65536", ValueError::Port(65_536))),
            ("server.1=a:1:1", one("a:1:1", ValueError::SamePorts)),
            ("server.1=a:1:2:king", one("a:1:2:king", ValueError::Role("king".into()))),
            ("server.1=a:1:2|b:1:2:observer", one("a:1:2|b:1:2:observer", ValueError::RolesDiffer)),
            ("server.1=a:1:2;x", one("a:1:2;x", ValueError::Client)),
            ("server.x=a:1:2", of_key("server.x", "server")),
            ("group.x=1", of_key("group.x", "group")),
            ("weight.x=1", of_key("weight.x", "weight")),
            ("weight.1=x", value("weight.1", "x", ValueError::Number)),
            ("weight.1=-1", value("weight.1", "-1", ValueError::Weight)),
            ("server.1=a:1:2\ngroup.1=2", ParseError::InNoGroup(ServerId(1))),
            ("group.1=1\ngroup.2=1", value("group.2", "1", ValueError::InTwoGroups(ServerId(1)))),
            ("group.1=x", value("group.1", "x", ValueError::Group)),
            ("version=zz", value("version", "zz", ValueError::Version)),
            ("tickTime=1", ParseError::UnknownKey { key: "tickTime".into() }),
        ] {
            assert_eq!(Ensemble::parse(text), Err(wanted), "{text}");
        }
        let said = |text: &str| Ensemble::parse(text).unwrap_err().to_string();
        assert_eq!(said("server.x=a:1:2"), "server.x: expected server.<id> with a number, e.g. server.1");
        assert_eq!(
            said("server.1=a:1:99999"),
            "server.1=\"a:1:99999\": expected ports from 0 to 65535, not 99999"
        );
    }
}

//! Connections that have not said who they are. They are few, in all and of one address, and it is the oldest that makes room
//! for the next: so nobody is kept out by others that say nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use tokio_util::sync::CancellationToken;

/// Of both peer ports together.
const MAX: usize = 128;
const MAX_OF_ADDRESS: usize = 64;

/// By the numbers of connections, which grow.
#[derive(Default)]
pub(super) struct Strangers(BTreeMap<u64, Stranger>);

struct Stranger {
    address: IpAddr,
    ended: CancellationToken,
}

impl Strangers {
    /// Somebody connected. `ended` ends the connection.
    pub fn arrive(&mut self, id: u64, address: IpAddr, ended: CancellationToken) {
        let of_address = self.0.iter().filter(|(_, stranger)| stranger.address == address);
        let mut of_address = of_address.map(|(id, _)| *id);
        let oldest = of_address.next();
        let full = 1 + of_address.count() >= MAX_OF_ADDRESS;
        let oldest =
            if full { oldest } else { self.0.keys().next().copied().filter(|_| self.0.len() >= MAX) };
        if let Some(gone) = oldest.and_then(|oldest| self.0.remove(&oldest)) {
            gone.ended.cancel();
        }
        self.0.insert(id, Stranger { address, ended });
    }

    /// It has said who it is, or is gone.
    pub fn leave(&mut self, id: u64) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_an_address_makes_room_and_no_other_is_disturbed() {
        let mut strangers = Strangers::default();
        let mut ended = Vec::new();
        let mut arrive = |strangers: &mut Strangers, address: u8| {
            let token = CancellationToken::new();
            strangers.arrive(ended.len() as u64, [10, 0, 0, address].into(), token.clone());
            ended.push((address, token));
        };
        arrive(&mut strangers, 2);
        (0..1000).for_each(|_| arrive(&mut strangers, 1));
        let open = |ended: &[(u8, CancellationToken)], of: u8| {
            ended.iter().filter(|(address, token)| *address == of && !token.is_cancelled()).count()
        };
        assert_eq!((open(&ended, 1), open(&ended, 2)), (MAX_OF_ADDRESS, 1));
        assert!(!ended.last().unwrap().1.is_cancelled(), "the newest");
        strangers.leave(1000);
        let mut arrive = |address: u8| {
            let token = CancellationToken::new();
            strangers.arrive(ended.len() as u64, [10, 0, 0, address].into(), token.clone());
            ended.push((address, token));
        };
        (3..250).for_each(&mut arrive);
        assert_eq!(strangers.0.len(), MAX);
        assert!(!ended[1000].1.is_cancelled(), "who has said who it is stays");
    }
}

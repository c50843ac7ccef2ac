//! Many clients that do next to nothing: each opens a session with an ephemeral, and pings. At some moment all fall silent.

use super::client::Client;
use std::collections::HashMap;

#[derive(Debug)]
pub struct Crowd {
    pub members: Vec<Client>,
    /// Who has which session.
    by_session: HashMap<i64, usize>,
    /// They open sessions, and keep them.
    pub is_awake: bool,
    /// Those whose turn it is.
    pub turn: usize,
}

/// Not all do something at once.
pub const TURNS: usize = 10;

impl Crowd {
    pub fn new(size: usize, timeout_ms: i32) -> Self {
        let members = (0..size).map(|index| Client::new(index, timeout_ms, false, 0)).collect();
        Self { members, by_session: HashMap::new(), is_awake: false, turn: 0 }
    }

    /// This member has a session now.
    pub fn opened(&mut self, index: usize) {
        self.by_session.insert(self.members[index].session, index);
    }

    /// The member that has this session, or had it.
    pub fn of(&self, session: i64) -> Option<&Client> {
        self.by_session.get(&session).map(|index| &self.members[*index])
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

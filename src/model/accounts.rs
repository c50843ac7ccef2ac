//! Names and passwords that a server was given.

use std::collections::BTreeMap;
use std::fmt;

/// Passwords by name. They are not printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Accounts(BTreeMap<String, String>);

impl Accounts {
    pub fn insert(&mut self, name: &str, password: &str) {
        self.0.insert(name.into(), password.into());
    }

    pub fn password(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

//! What is set about clients that prove their names by SASL.

use super::jaas;
use crate::model::Accounts;
use std::fmt;
use std::path::PathBuf;

#[derive(Clone, Default)]
pub struct Sasl {
    /// ACLs may have entries of the scheme `sasl` (`authProvider.N`).
    pub provider: bool,
    /// Where accounts stand (`java.security.auth.login.config`), in which section (`sasl.serverconfig`).
    pub login_file: Option<PathBuf>,
    pub section: Option<String>,
    /// Who may log in; `None`: nobody can.
    pub accounts: Option<Accounts>,
    /// Names that may do everything (`superUser`, `superUser.*`).
    pub super_users: Vec<String>,
    /// The password of the account `super`, if it is not to stand in the file.
    pub super_password: Option<String>,
    /// An ACL entry for this name stands for everyone who has logged in (`letAnySaslUserDoX`).
    pub any_user: Option<String>,
    /// Who fails to log in stays, as nobody (`allowSaslFailedClients`).
    pub keeps_failed: bool,
}

impl Sasl {
    const SECTION: &str = "Server";
    const SUPER: &str = "super";

    /// Reads the text of the login file. An error comes with its line.
    pub(super) fn take_logins(&mut self, text: &str) -> Result<(), (usize, String)> {
        self.accounts = jaas::accounts(text, self.section.as_deref().unwrap_or(Self::SECTION))?;
        if let (Some(accounts), Some(password)) = (&mut self.accounts, &self.super_password)
            && accounts.password(Self::SUPER).is_some()
        {
            accounts.insert(Self::SUPER, password);
        }
        Ok(())
    }
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("accounts", &self.accounts)
            .field("super_users", &self.super_users)
            .finish_non_exhaustive()
    }
}

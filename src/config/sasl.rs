//! What is set about clients that prove their names by SASL.

use super::value::At;
use super::{ConfigError, Machine, jaas};
use crate::model::Accounts;
use std::fmt;
use std::path::PathBuf;

#[derive(Clone, Default)]
pub struct Sasl {
    /// The file with the accounts (`java.security.auth.login.config`), and their section in it (`sasl.serverconfig`).
    login_file: Option<PathBuf>,
    section: Option<String>,
    /// Who may log in; `None`: nobody can.
    pub accounts: Option<Accounts>,
    /// Names that may do everything (`superUser`, `superUser.*`).
    pub super_users: Vec<String>,
    /// The password of the account `super`, if it is not in the file.
    super_password: Option<String>,
    /// An ACL entry for this name means everyone who has logged in (`letAnySaslUserDoX`).
    pub any_user: Option<String>,
    /// Clients that fail to log in stay connected, unauthenticated (`allowSaslFailedClients`).
    pub keeps_failed: bool,
}

impl Sasl {
    const SECTION: &str = "Server";
    const SUPER: &str = "super";

    /// Takes one setting; false: it belongs elsewhere.
    pub(super) fn set(&mut self, at: &At<'_>) -> Result<bool, ConfigError> {
        match at.key {
            "java.security.auth.login.config" => self.login_file = Some(at.path()?),
            "sasl.serverconfig" => self.section = Some(at.value.into()),
            "SASLAuthenticationProvider.superPassword" => self.super_password = Some(at.value.into()),
            "letAnySaslUserDoX" => self.any_user = Some(at.value.into()),
            "allowSaslFailedClients" => self.keeps_failed = at.flag(),
            key if key == "superUser" || key.starts_with("superUser.") => {
                self.super_users.push(at.value.into());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads who may log in.
    pub(super) fn read_logins(&mut self, machine: &Machine<'_>) -> Result<(), ConfigError> {
        let Some(file) = self.login_file.clone() else { return Ok(()) };
        let text = machine.text(&file)?;
        let wrong = |(line, source)| ConfigError::Logins { file, line, source };
        let section = self.section.as_deref().unwrap_or(Self::SECTION);
        self.accounts = jaas::accounts(&text, section).map_err(wrong)?;
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

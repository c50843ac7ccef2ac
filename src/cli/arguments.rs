//! How zxids, sessions, times and types are written on the command line, and times in the output.

use crate::model::{Op, Zxid};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why an argument is not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadArgument {
    #[error("expected a hexadecimal number as it is printed, such as 0x100000017")]
    Hex,
    #[error(
        "expected a time such as 2026-11-28T12:00:00Z or 2026-11-28T13:00:00.250+01:00, or milliseconds since 1970"
    )]
    Time,
    #[error(
        "expected a type as it is printed: create, delete, setData, multi, createSession, closeSession, error, …"
    )]
    Type,
}

pub fn zxid(text: &str) -> Result<Zxid, BadArgument> {
    let zxid = hex(text).and_then(|bits| i64::try_from(bits).map_err(|_| BadArgument::Hex))?;
    Ok(Zxid(zxid))
}

/// As a log has it: an id above 2⁶³ is negative there.
pub fn session(text: &str) -> Result<i64, BadArgument> {
    hex(text).map(u64::cast_signed)
}

fn hex(text: &str) -> Result<u64, BadArgument> {
    // Without 0x it might be meant as a decimal number.
    let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+')).ok_or(BadArgument::Hex)?;
    u64::from_str_radix(digits, 16).map_err(|_| BadArgument::Hex)
}

/// In milliseconds since 1970.
pub fn time(text: &str) -> Result<i64, BadArgument> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| BadArgument::Time)?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).map_err(|_| BadArgument::Time)
}

pub fn transaction_type(text: &str) -> Result<Op, BadArgument> {
    let types = [
        Op::Create,
        Op::Create2,
        Op::CreateContainer,
        Op::CreateTtl,
        Op::Delete,
        Op::DeleteContainer,
        Op::SetData,
        Op::SetAcl,
        Op::Check,
        Op::Multi,
        Op::Reconfig,
        Op::CreateSession,
        Op::CloseSession,
        Op::Error,
    ];
    types.into_iter().find(|op| op.name() == text).ok_or(BadArgument::Type)
}

/// Milliseconds since 1970 as a UTC time.
pub fn show_time(ms: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000) else {
        // Nobody's clock says that.
        return format!("{ms}ms");
    };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_utc() {
        assert_eq!(show_time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(show_time(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(show_time(1_795_478_399_999), "2026-11-23T23:59:59.999Z");
        assert_eq!(show_time(i64::MAX), "9223372036854775807ms");
    }

    #[test]
    fn times_are_read_as_they_are_shown() {
        for ms in [0, 951_782_400_123, 1_795_478_399_999] {
            assert_eq!(time(&show_time(ms)), Ok(ms));
            assert_eq!(time(&ms.to_string()), Ok(ms));
        }
        assert_eq!(time("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(time("yesterday"), Err(BadArgument::Time));
    }

    #[test]
    fn a_zxid_says_that_it_is_hexadecimal() {
        assert_eq!(zxid("0x100000017"), Ok(Zxid(0x1_0000_0017)));
        for bad in ["100000017", "0x", "0x+1", "0xfffffffffffffffff", "0xffffffffffffffff", ""] {
            assert_eq!(zxid(bad), Err(BadArgument::Hex), "{bad}");
        }
        assert_eq!(session("0xffffffffffffffff"), Ok(-1));
    }
}

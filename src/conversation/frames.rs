//! Cuts a connection's bytes into frames: a length, then that many bytes.

/// The four-letter words: questions in plain text (`server/command/FourLetterCommands`).
const WORDS: [&[u8; 4]; 18] = [
    b"conf", b"cons", b"crst", b"dirs", b"dump", b"envi", b"gtmk", b"ruok", b"stmk", b"srst", b"srvr",
    b"stat", b"wchc", b"wchp", b"wchs", b"mntr", b"isro", b"hash",
];
/// What telnet sends when it is interrupted.
const TELNET_BREAK: [u8; 4] = [0xff, 0xf4, 0xff, 0xfd];

/// What the bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// More bytes are needed.
    Incomplete,
    /// A frame of this many bytes, after the four of its length.
    Frame(usize),
    /// A four-letter word, on a connection that has not said anything yet.
    Word([u8; 4]),
    /// A length that is negative or above the limit.
    Refused(i32),
}

/// Looks at the front of `bytes`. All words, read as a length, exceed any sane limit.
#[inline]
pub fn front(bytes: &[u8], words: bool, max_frame: usize) -> Front {
    let Some(head) = bytes.first_chunk::<4>() else { return Front::Incomplete };
    if words && (*head == TELNET_BREAK || WORDS.contains(&head)) {
        return Front::Word(*head);
    }
    match i32::from_be_bytes(*head) {
        len if len < 0 || len as usize > max_frame => Front::Refused(len),
        len if bytes.len() - 4 < len as usize => Front::Incomplete,
        len => Front::Frame(len as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_at_their_length() {
        assert_eq!(front(b"\0\0", true, 100), Front::Incomplete);
        assert_eq!(front(b"\0\0\0\x03ab", true, 100), Front::Incomplete);
        assert_eq!(front(b"\0\0\0\x03abcd", true, 100), Front::Frame(3));
        assert_eq!(front(b"\0\0\0\0", true, 100), Front::Frame(0));
        assert_eq!(front(&100_i32.to_be_bytes(), true, 100), Front::Incomplete);
        assert_eq!(front(&101_i32.to_be_bytes(), true, 100), Front::Refused(101));
        assert_eq!(front(&(-1_i32).to_be_bytes(), true, 100), Front::Refused(-1));
    }

    #[test]
    fn words_count_on_a_new_connection_alone() {
        assert_eq!(front(b"ruok\n", true, 1 << 20), Front::Word(*b"ruok"));
        assert_eq!(front(b"ruok\n", false, 1 << 20), Front::Refused(i32::from_be_bytes(*b"ruok")));
        assert_eq!(front(b"abcd", true, 1 << 20), Front::Refused(i32::from_be_bytes(*b"abcd")));
    }
}

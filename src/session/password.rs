//! The password of a session: a function of its id alone, so that every server of an ensemble can verify it.
//! It is no security measure (`ZooKeeperServer.generatePasswd`).

use crate::model::SessionId;

const SECRET: i64 = 0xB341_5C00;

/// The 16 bytes that `java.util.Random(id ^ secret).nextBytes` gives.
pub fn password_of(id: SessionId) -> [u8; 16] {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    let mut state = ((id.0 ^ SECRET) as u64 ^ MULTIPLIER) & MASK;
    let mut out = [0; 16];
    for chunk in out.chunks_exact_mut(4) {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(0xB) & MASK;
        chunk.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_those_of_a_java_server() {
        let expected =
            [0x94, 0xfb, 0xa9, 0x1e, 0x91, 0x47, 0x6c, 0xd7, 0x92, 0x8a, 0x13, 0x61, 0xc2, 0x74, 0x0b, 0xd4];
        assert_eq!(password_of(SessionId(0x0100_0010_ae3a_0000)), expected);
    }
}

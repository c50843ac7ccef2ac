//! The frame splitter: it always moves on, and never past the bytes that it was given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zabra::client_port::frames::{Front, front};
use zabra::wire::connect::Connect;

fuzz_target!(|data: &[u8]| {
    const LIMIT: usize = 1 << 16;
    let mut rest = data;
    let mut first = true;
    loop {
        match front(rest, first, LIMIT) {
            Front::Frame(len) => {
                assert!(len <= LIMIT && rest.len() >= 4 + len);
                if first {
                    let _ = Connect::decode(&rest[4..4 + len]);
                }
                rest = &rest[4 + len..];
            }
            Front::Incomplete | Front::Word(_) | Front::Refused(_) => return,
        }
        first = false;
    }
});

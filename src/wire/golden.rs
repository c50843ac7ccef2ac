//! What the tests of both peer ports share: bytes that were recorded between Java's servers, as text.

/// The configuration of the servers that were recorded, without its version.
pub const CONFIG: &str = "server.1=zk1:26739:26740:participant;127.0.0.1:26738\n\
                          server.2=zk2:26742:26743:participant;127.0.0.1:26741\n\
                          server.3=zk3:26745:26746:participant;127.0.0.1:26744\n\
                          server.4=zk4:26748:26749:observer;127.0.0.1:26747\n\
                          version=";

/// Digits, and text in quotes.
pub fn hex(text: &str) -> Vec<u8> {
    let digit = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let part = |(at, part): (usize, &str)| match at % 2 {
        0 => {
            let digits: Vec<u8> = part.bytes().filter(u8::is_ascii_hexdigit).collect();
            digits.chunks(2).map(digit).collect()
        }
        _ => part.as_bytes().to_vec(),
    };
    text.split('\'').enumerate().flat_map(part).collect()
}

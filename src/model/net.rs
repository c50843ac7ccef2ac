//! Networks as the entries of the scheme `ip` name them, read with Java's eyes (`IPAuthenticationProvider`): numbers may have
//! a sign and zeros in front, and no IPv4 address is inside an IPv6 one.

/// An address, and how many of its bits count; those that do not are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Net {
    bytes: [u8; 16],
    width: Width,
}

/// The kind of a network, and how many bits it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Width {
    is_v6: bool,
    bits: u8,
}

impl Net {
    /// `address` or `address/bits`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let is_v6 = address.contains(':');
        let (bytes, all) = if is_v6 { (parse_v6(address)?, 128) } else { (parse_v4(address)?, 32) };
        let bits = match bits {
            Some(bits) => u8::try_from(bits.parse::<i32>().ok()?).ok()?,
            None => all,
        };
        (bits <= all).then(|| Self { bytes, width: Width { is_v6, bits } }.masked(bits))
    }

    /// Its kind and its bits.
    pub fn width(&self) -> Width {
        self.width
    }

    /// The network of this width that it is in, if there is one.
    pub fn at(&self, width: Width) -> Option<Self> {
        (width.is_v6 == self.width.is_v6 && width.bits <= self.width.bits).then(|| self.masked(width.bits))
    }

    /// Whether `other`, an address, is inside.
    pub fn contains(&self, other: &Self) -> bool {
        other.at(self.width).as_ref() == Some(self)
    }

    fn masked(mut self, bits: u8) -> Self {
        self.width.bits = bits;
        for (at, byte) in self.bytes.iter_mut().enumerate() {
            let counting = usize::from(bits).saturating_sub(at * 8).min(8);
            // All bits of the byte but the last 8 − counting.
            *byte &= !0xff_u8.checked_shr(counting as u32).unwrap_or(0);
        }
        self
    }
}

fn parse_v4(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut count = 0;
    for part in text.split('.') {
        *bytes[..4].get_mut(count)? = u8::try_from(part.parse::<i32>().ok()?).ok()?;
        count += 1;
    }
    (count == 4).then_some(bytes)
}

fn parse_v6(text: &str) -> Option<[u8; 16]> {
    let (front, back) = match text.split_once("::") {
        Some((front, back)) => (front, Some(back)),
        None => (text, None),
    };
    let mut bytes = [0; 16];
    let front = parse_groups(front, &mut bytes)?;
    match back {
        None => (front == 16).then_some(bytes),
        Some(back) => {
            let mut rest = [0; 16];
            let len = parse_groups(back, &mut rest)?;
            // The gap is one group at least.
            (front + len < 16).then(|| bytes[16 - len..].copy_from_slice(&rest[..len]))?;
            Some(bytes)
        }
    }
}

/// Hexadecimal groups of at most four digits. How many bytes they are.
fn parse_groups(text: &str, out: &mut [u8; 16]) -> Option<usize> {
    let mut len = 0;
    for group in text.split(':').filter(|_| !text.is_empty()) {
        let value = i32::from_str_radix(group, 16).ok().filter(|_| group.len() <= 4)?;
        out.get_mut(len..len + 2)?.copy_from_slice(&(value as u16).to_be_bytes());
        len += 2;
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_java_reads_them() {
        for good in
            ["127.00.0.01", "+1.2.3.4/+8", "1.2.3.4/032", "1:2:3:4:5:6:7:8", "::", "1::", "1:2:3:4:5:6::7/0"]
        {
            assert!(Net::parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.-4",
            "1.2.3.",
            "1.2.3.4/",
            "1.2.3.4/33",
            "1.2.3.4/-1",
            "1.2.3.4/8/8",
            ":",
            ":::",
            "1::2::3",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7::8",
            "::1:2:3:4:5:6:7:8:9",
            "::ffff:1.2.3.4",
            "12345::",
            "g::",
            "::/129",
        ] {
            assert!(Net::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn masks_are_compared_bit_by_bit() {
        let inside = |net: &str, address: &str| {
            let [net, address] = [net, address].map(|text| Net::parse(text.as_bytes()).unwrap());
            net.contains(&address)
        };
        assert!(inside("10.1.2.0/23", "10.1.3.255") && !inside("10.1.2.0/23", "10.1.4.0"));
        assert!(inside("10.1.2.99/23", "10.1.3.255"), "bits that do not count may be set");
        assert!(inside("fe80::/10", "fe80::1") && inside("fe80::/10", "febf::1"));
        assert!(!inside("fe80::/10", "fec0::1") && !inside("0.0.0.0/0", "::1") && !inside("::/0", "1.2.3.4"));
        assert!(
            inside("0.0.0.0/0", "255.1.2.3") && inside("::/0", "ffff::") && inside("::1", "0:0:0:0:0:0:0:1")
        );
        assert!(inside("1.2.3.4", "1.2.3.4") && !inside("1.2.3.4", "1.2.3.5"));
    }
}

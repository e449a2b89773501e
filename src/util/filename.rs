//! Names from outside as names of files.

/// The name of a file for any text: other texts have other names, also where the system ignores
/// case, and none leads out of its directory, is hidden, or is too long.
///
/// All but `a-z0-9_-` and inner dots is percent-encoded. A name longer than [`MAX`] is cut and ends
/// in a hash behind `~`, which no other has.
pub(crate) fn encode(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            b'.' if at > 0 => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.len() > MAX {
        name.truncate(MAX - 33);
        name.push_str(&format!("~{:032x}", fnv1a(text.as_bytes())));
    }
    name
}

/// Leaves room, in the 255 bytes a name may have, for an extension and for a temporary name.
pub(crate) const MAX: usize = 200;

/// [FNV-1a](http://www.isthe.com/chongo/tech/comp/fnv/) of 128 bits: the same in every version and process.
fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_leads_anywhere_or_meets_another() {
        let long = "x".repeat(253);
        let longer = "é".repeat(126);
        let names = [
            ".",
            "..",
            "../..",
            "/etc/passwd",
            "a/b",
            "a%2Fb",
            "a.b",
            ".hidden",
            "A",
            "a",
            "%41",
            "con\\x",
            "a:b",
            &long,
            &long[1..],
            &longer,
            "helloworld",
            "HELLOWORLD",
            "0b6e-1f",
            "Ä",
            "ä",
            "~",
            "a~b",
        ];
        let mut seen = HashSet::new();
        for text in names {
            let name = encode(text);
            assert!(!name.starts_with('.') && !name.contains(['/', '\\', ':']) && name.len() <= MAX, "{name}");
            assert!(name.is_ascii() && seen.insert(name.to_ascii_lowercase()), "{text} is {name}");
        }
        assert_eq!(encode("greeter-1.local"), "greeter-1.local");
        assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964, "the published test vector");
    }
}

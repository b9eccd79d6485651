//! The digest of a version vector: SipHash-2-4 of its canonical bytes under a fixed key.
//!
//! It only has to tell unequal vectors of honest peers apart (who holds a node certificate could lie about its vector
//! outright), and it has to be the same in every build.

const KEY: (u64, u64) = (u64::from_le_bytes(*b"starling"), u64::from_le_bytes(*b"vector/1"));

/// The digest of an encoded vector.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    siphash24(KEY, bytes)
}

fn round(v: &mut [u64; 4]) {
    let [a, b, c, d] = v;
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

fn siphash24((k0, k1): (u64, u64), bytes: &[u8]) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let absorb = |v: &mut [u64; 4], word: u64| {
        v[3] ^= word;
        round(v);
        round(v);
        v[0] ^= word;
    };
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0u8; 8];
        word.copy_from_slice(chunk);
        absorb(&mut v, u64::from_le_bytes(word));
    }
    let mut last = [0u8; 8];
    last.iter_mut().zip(chunks.remainder()).for_each(|(to, from)| *to = *from);
    last[7] = bytes.len().to_le_bytes()[0];
    absorb(&mut v, u64::from_le_bytes(last));
    v[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_siphash_as_its_authors_published_it() {
        let key: Vec<u8> = (0..16).collect();
        let half = |i: usize| u64::from_le_bytes(key[i..i + 8].try_into().unwrap());
        let input: Vec<u8> = (0..15).collect();
        assert_eq!(siphash24((half(0), half(8)), &input), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn stays_the_same_in_every_build() {
        assert_eq!(digest(b""), 8_337_941_479_368_343_400);
    }
}

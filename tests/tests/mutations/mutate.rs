//! Seeded mutations of files.

/// SplitMix64: the same inputs in every run.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// What replaces a number in a file.
const NUMBERS: [&[u8]; 8] =
    [b"0", b"-1", b"4294967296", b"18446744073709551615", b"99999999999999999999999", b"1e308", b"0.5", b"2147483648"];

/// What is inserted into a file.
const TOKENS: [&[u8]; 12] =
    [b"\xef\xbb\xbf", b"\0", b"NaN", b"\n", b"{", b"[[[[[[[[", b"]", b",", b"\xff\xfe", b"\\ud800", b"null", b"-"];

/// Returns `bytes` after one to three damages. No damage removes or repeats a whole run of tar blocks, which no reader could notice.
pub fn mutate(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + rng.below(3) {
        damage(&mut bytes, rng);
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.below(bytes.len());
    let end = (at + 1 + rng.below(700)).min(bytes.len());
    // Not a multiple of a tar's blocks.
    let odd_end = if (end - at).is_multiple_of(512) { at } else { end };
    match rng.below(9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        1 if at < bytes.len() => bytes[at] = [0, 0xff, b'"', b'\n', b' '][rng.below(5)],
        2 => bytes[at..end].fill(0),
        3 => {
            // A hole of whole blocks, as a sparse copy or a failed disk leaves it.
            let from = at / 512 * 512;
            let to = (from + 512 * (1 + rng.below(3))).min(bytes.len());
            bytes[from..to].fill(0);
        }
        4 => bytes.truncate(at),
        5 => {
            bytes.drain(at..odd_end);
        }
        6 => {
            let again = bytes[at..odd_end].to_vec();
            bytes.splice(at..at, again);
        }
        7 => {
            let token = TOKENS[rng.below(TOKENS.len())];
            bytes.splice(at..at, token.iter().copied());
        }
        _ => replace_number(bytes, at, rng),
    }
}

/// Replaces the first number at or after `at`.
fn replace_number(bytes: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    let Some(from) = (at..bytes.len()).find(|&i| bytes[i].is_ascii_digit()) else { return };
    let to = (from..bytes.len()).find(|&i| !bytes[i].is_ascii_digit()).unwrap_or(bytes.len());
    let number = NUMBERS[rng.below(NUMBERS.len())];
    bytes.splice(from..to, number.iter().copied());
}

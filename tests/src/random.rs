//! A seeded generator: a failure names its seed, and the seed replays it.

/// splitmix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// Starts from a seed. Mixed, since the states of neighbours that are a step apart would give one stream, shifted by one.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0) % n.max(1)
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of the given.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Shuffles (Fisher, Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// Runs one history after the other and names the seed of the one that fails: the first `default` seeds, or so many as
/// STARLING_`family`_RUNS says. STARLING_`family`_SEED replays one, or begins there where both are set.
pub fn each_seed(family: &str, default: u64, history: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number =
        |what: &str| std::env::var(format!("STARLING_{family}_{what}")).ok().and_then(|s| s.parse::<u64>().ok());
    let first = number("SEED");
    let runs = number("RUNS").unwrap_or(if first.is_some() { 1 } else { default });
    for seed in (first.unwrap_or(0)..).take(usize::try_from(runs).unwrap_or(usize::MAX)) {
        if let Err(panic) = std::panic::catch_unwind(|| history(seed)) {
            eprintln!("STARLING_{family}_SEED={seed} replays it");
            std::panic::resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn neighbouring_seeds_do_not_share_a_stream() {
        let stream = |seed| {
            let mut r = Random::new(seed);
            (0..100).map(|_| r.below(u64::MAX)).collect::<Vec<_>>()
        };
        let (one, two) = (stream(1), stream(2));
        assert!(one.iter().all(|n| !two.contains(n)));
    }
}

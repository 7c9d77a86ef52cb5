//! The order of an epoch: a seeded permutation that is computed, not stored.
//!
//! [`Permutation`] is version 1 of ours: a Feistel network of six rounds over the smallest even number of bits that holds the range, walked
//! until it lands inside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002); its round function is the finaliser of
//! SplitMix64 (Steele, Lea and Flood, 2014). It is written out here because a job that is resumed, on whatever version of whatever
//! library, has to find the same order: the golden test must never change.

/// The first version of the permutation, as it is named in `dataset status`.
pub const PERMUTATION: &str = "feistel-1";

const ROUNDS: usize = 6;

/// A permutation of `0..count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permutation {
    count: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

/// SplitMix64's finaliser.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Permutation {
    /// The permutation of `0..count` that belongs to these numbers: `seed` is the topic's, `epoch` counts from 0, and `part` tells apart
    /// what is shuffled within one epoch (0: its objects; the windows of its records: 1, 2 and so on).
    #[must_use]
    pub fn new(count: u64, seed: u64, epoch: u64, part: u64) -> Self {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        let mut state = mix(seed ^ mix(epoch.wrapping_add(1) ^ mix(part.wrapping_add(1))));
        let keys = std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        });
        Self { count, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What stands at `place`; `place` itself if there is no such place.
    #[must_use]
    pub fn at(&self, place: u64) -> u64 {
        if place >= self.count {
            return place;
        }
        let mut value = place;
        loop {
            value = self.round_trip(value);
            // The network permutes up to four times the range, so this takes four turns on average at most.
            if value < self.count {
                return value;
            }
        }
    }

    /// Where `value` stands: the other way round. `value` itself if it is none of them.
    #[must_use]
    pub fn place_of(&self, value: u64) -> u64 {
        if value >= self.count {
            return value;
        }
        let mut place = value;
        loop {
            place = self.round_trip_back(place);
            if place < self.count {
                return place;
            }
        }
    }

    fn round_trip(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }

    fn round_trip_back(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys.iter().rev() {
            (left, right) = (right ^ (mix(left ^ key) & mask), left);
        }
        (left << self.half_bits) | right
    }
}

#[cfg(test)]
mod tests {
    use super::Permutation;

    #[test]
    fn each_place_has_its_own() {
        for count in [0_u64, 1, 2, 3, 7, 64, 65, 1000, 4097] {
            let order = Permutation::new(count, 42, 3, 0);
            let mut seen: Vec<u64> = (0..count).map(|place| order.at(place)).collect();
            assert!((0..=count).all(|place| order.place_of(order.at(place)) == place), "{count}");
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{count}");
        }
    }

    /// A job resumes in the order in which it began, years later: these numbers must never change.
    #[test]
    fn golden_order() {
        let first = |count, seed, epoch, part| -> Vec<u64> {
            let order = Permutation::new(count, seed, epoch, part);
            (0..8).map(|place| order.at(place)).collect()
        };
        assert_eq!(first(10, 0, 0, 0), GOLDEN[0]);
        assert_eq!(first(1000, 42, 0, 0), GOLDEN[1]);
        assert_eq!(first(1000, 42, 1, 0), GOLDEN[2]);
        assert_eq!(first(1000, 42, 1, 1), GOLDEN[3]);
        assert_eq!(first(u64::from(u32::MAX), 7, 5, 0), GOLDEN[4]);
    }

    const GOLDEN: [[u64; 8]; 5] = [
        [9, 5, 1, 3, 2, 4, 7, 0],
        [344, 330, 815, 864, 481, 408, 827, 863],
        [511, 559, 410, 400, 193, 517, 388, 934],
        [378, 715, 970, 628, 515, 993, 786, 695],
        [
            3_398_669_068,
            4_249_501_544,
            147_088_505,
            865_694_287,
            3_979_945_194,
            4_225_462_177,
            1_620_464_849,
            1_765_801_903,
        ],
    ];

    /// Neighbours do not stay together, whatever the seed.
    #[test]
    fn nothing_stays_where_it_was_more_often_than_chance_has_it() {
        let (mut fixed, mut neighbours) = (0, 0);
        for seed in 0..200 {
            let order = Permutation::new(100, seed, 0, 0);
            for place in 0..99 {
                fixed += u32::from(order.at(place) == place);
                neighbours += u32::from(order.at(place) + 1 == order.at(place + 1));
            }
        }
        // One each is expected of a permutation: 200 in all.
        assert!((120..=280).contains(&fixed), "{fixed}");
        assert!((120..=280).contains(&neighbours), "{neighbours}");
    }
}

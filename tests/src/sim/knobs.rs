//! Limits drawn per seed: small ones make rare paths common, different ones find what one size hides.

use std::time::Duration;

use strongroom::{Compression, Durability, Options};

use crate::dice::Dice;

/// The engine's options of one run.
pub fn options(seed: u64) -> Options {
    let mut dice = Dice::new(seed ^ 0x006b_6e6f_6273);
    let mut options = Options::tiny();
    options.durability = *dice.pick(&[Durability::Local, Durability::Local, Durability::Buffered]);
    options.immutable_memtables_max = 1 + dice.below(3) as usize;
    options.segment_bytes = *dice.pick(&[4 << 10, 4 << 10, 16 << 10, 64 << 10]);
    options.wal_keep_bytes = *dice.pick(&[0, 8 << 10, 64 << 10]);
    options.block_bytes = *dice.pick(&[256, 256, 512, 4 << 10]);
    options.level0_tables = 2 + dice.below(3) as usize;
    options.level0_tables_stop = 2 * options.level0_tables + dice.below(3) as usize;
    options.level1_bytes = *dice.pick(&[64 << 10, 128 << 10, 1 << 20]);
    options.cache_bytes = *dice.pick(&[0, 2 << 10, 16 << 10, 256 << 10]);
    options.filter_bits = *dice.pick(&[0, 1, 4, 10]);
    // Hours and more: the clock jumps.
    options.expiry_grace = Duration::from_secs(*dice.pick(&[0, 0, 1, 60, 24 * 3600]));
    options.compression = *dice.pick(&[Compression::None, Compression::Lz4, Compression::Lz4]);
    // Half of the runs keep all values in tables, which makes these many and large.
    options.separate_bytes = *dice.pick(&[0, 0, 0, 64, 300, 2000]);
    options.compaction_threads = 1 + dice.below(4) as usize;
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_options_are_valid_and_repeat_with_the_seed() {
        for seed in 0..200 {
            options(seed).validate().unwrap();
            assert_eq!(format!("{:?}", options(seed)), format!("{:?}", options(seed)));
        }
        assert_ne!(format!("{:?}", options(1)), format!("{:?}", options(2)));
    }
}

//! libFuzzer's way into the targets of `strongroom-fuzz`: the same functions, and their repairs after each
//! mutation, so that what libFuzzer changes gets past checksums.

pub use libfuzzer_sys;

use std::sync::OnceLock;

use strongroom_fuzz::Parser;

/// The target's parser, found once.
pub fn parser(name: &'static str) -> &'static Parser {
    static PARSER: OnceLock<Parser> = OnceLock::new();
    PARSER.get_or_init(|| match strongroom_fuzz::target(name) {
        Some(parser) => {
            // Samples are made once per process; not inside a measured run.
            let _ = (parser.samples)();
            parser
        }
        None => panic!("there is no target {name}"),
    })
}

/// libFuzzer's own mutation, then, three times in four, the repair.
pub fn mutate(parser: &Parser, data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let size = libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    if seed % 4 != 0 {
        (parser.repair)(&mut data[..size]);
    }
    size
}

/// The entry of one target.
#[macro_export]
macro_rules! entry {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            strongroom_fuzz::execute($crate::parser($name), data);
        });
        $crate::libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::mutate($crate::parser($name), data, size, max_size, seed)
        });
    };
}

//! The corpus, and some thousand mutations of it, for every parser. One test at a time, because memory is
//! measured for the process.

use std::sync::{Mutex, PoisonError};

use strongroom_fuzz::campaign::{self, Until};
use strongroom_fuzz::{corpus, target, targets};

/// Mutations of each target; the slow ones, which seal or open files, get a tenth.
const MUTATIONS: u64 = 20_000;
const SLOW: [&str; 4] = ["escrow", "keystore_base", "configuration", "base_copy_files"];
const SEED: u64 = 0x5eed;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn parsers_take_their_samples_and_survive_mutations_of_them() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for parser in targets() {
        for (name, sample) in corpus::samples(&parser) {
            // A base copy's second sample, and torn files, are accepted in part; all must be run.
            let result = campaign::attempt(&parser, &sample);
            assert_ne!(result.as_ref().ok(), None, "{} {name}: {result:?}", parser.name);
        }
        let accepted = corpus::samples(&parser)
            .iter()
            .filter(|(_, sample)| campaign::attempt(&parser, sample) == Ok(true))
            .count();
        assert!(accepted > 0, "{} accepts none of its samples", parser.name);
        let count = if SLOW.contains(&parser.name) {
            MUTATIONS / 10
        } else {
            MUTATIONS
        };
        let outcome = campaign::run(&parser, SEED, Until::Count(count));
        if let Some(failure) = outcome.failure {
            let path = campaign::keep_case(parser.name, &failure.input).unwrap();
            panic!(
                "{}: {} (seed {SEED:#x}; cargo run -p strongroom-fuzz -- --target {} --case {})",
                parser.name,
                failure.message,
                parser.name,
                path.display()
            );
        }
    }
}

#[test]
fn samples_in_the_repository_are_those_the_encoders_make() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for parser in targets() {
        let stale = corpus::stale(&parser);
        assert!(
            stale.is_empty(),
            "{}: {stale:?} differ: cargo run -p strongroom-fuzz -- --write-corpus",
            parser.name
        );
    }
}

#[test]
fn every_target_has_a_libfuzzer_entry_and_a_corpus_of_its_own() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let manifest = include_str!("../../../fuzz/Cargo.toml");
    let entries = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/fuzz_targets");
    let names: Vec<&str> = targets().iter().map(|parser| parser.name).collect();
    assert!(
        names.windows(2).all(|pair| pair[0] != pair[1]),
        "two targets of one name"
    );
    for name in &names {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "fuzz/Cargo.toml lacks {name}"
        );
        let text = std::fs::read_to_string(format!("{entries}/{name}.rs")).unwrap();
        assert!(
            text.contains(&format!("\"{name}\"")),
            "{name}.rs runs another target"
        );
    }
    for entry in std::fs::read_dir(corpus::root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with('.') {
            continue;
        }
        assert!(target(&name).is_some(), "a corpus without a target: {name}");
    }
}

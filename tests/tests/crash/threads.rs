//! Several threads write while the power fails: group commit, the background thread and all.
//!
//! Which operation is the last is chosen by seed; what the threads did before it is up to the machine,
//! so a seed does not repeat a run exactly. What must hold is the same for every run: each thread's
//! batches are whole, without a gap, all acknowledged ones among them.

use std::sync::atomic::{AtomicU64, Ordering};

use strongroom::io::sim::{CrashMode, SimFs};
use strongroom::{Background, Durability, Engine, Options};
use strongroom_tests::dice::{Dice, fresh_seed};
use strongroom_tests::keys::SimKeys;
use strongroom_tests::kill::{THREADS, check_batches, create_tenants, write_on_all_threads};
use strongroom_tests::world::{DIR, is_failure_of_the_machine};

use super::number;

fn open(fs: &SimFs, keys: &SimKeys, background: Background) -> strongroom::Result<Engine> {
    let mut options = Options::tiny();
    options.background = background;
    let builder = Engine::builder(DIR).shared_keys(keys.provider()).options(options);
    builder.io(fs.io(fresh_seed())).open()
}

#[test]
fn power_failure_under_many_writers_leaves_whole_batches_without_a_gap() {
    let first = number("STRONGROOM_SEED", 0);
    for seed in first..first + number("STRONGROOM_THREAD_ROUNDS", 60) {
        let mut dice = Dice::new(seed);
        let (mut fs, keys) = (SimFs::new(), SimKeys::new());
        create_tenants(&open(&fs, &keys, Background::Manual).unwrap()).unwrap();
        let mut next = vec![0; THREADS as usize];
        for round in 0..3 {
            let what = format!("seed {seed}, round {round}");
            let engine = open(&fs, &keys, Background::Thread).unwrap_or_else(|e| panic!("{what}: {e:?}"));
            fs.crash_at(fs.ops() + 1 + dice.below(1500), dice.percent(50));
            let reported: Vec<AtomicU64> = next.iter().map(|n| AtomicU64::new(*n)).collect();
            let errors = write_on_all_threads(&engine, &next, Durability::Local, |thread, number| {
                reported[thread as usize].store(number + 1, Ordering::Relaxed);
                true
            });
            for e in errors {
                assert!(
                    is_failure_of_the_machine(&e),
                    "{what}: an error of the wrong kind: {e:?}"
                );
            }
            drop(engine);
            next = reported.iter().map(|n| n.load(Ordering::Relaxed)).collect();
            let mode = *dice.pick(&[CrashMode::DropAll, CrashMode::KeepAll, CrashMode::KeepRandom]);
            fs = fs.crashed_image(mode, dice.roll());
            let engine = open(&fs, &keys, Background::Manual).unwrap_or_else(|e| panic!("{what}: {e:?}"));
            check_batches(&engine, &mut next).unwrap_or_else(|e| panic!("{what}, {mode:?}: {e}"));
        }
    }
}

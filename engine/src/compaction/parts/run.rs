//! Carries the parts of a compaction out, side by side or one after the other, and makes one of what they wrote.
//!
//! Side by side, the calling thread does the first part and is the only one that asks whether to give up, for a whole
//! flush may be done inside that question. It goes on asking until the last part has ended, so that memtables never
//! wait for a long part. Who fails first stops the others, and that failure is the job's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::Part;
use crate::compaction::Work;
use crate::compaction::output::{Complete, cancelled};
use crate::error::{Error, Result};
use crate::hooks::{self, planted, rare};
use crate::options::Background;

/// Between two questions whether to give up, while the calling thread waits for the others.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Does one part with what it is to work with: what was written is complete, but for the names.
pub(crate) type DoPart<'a> = &'a (dyn Fn(&Work<'_>, &Part) -> Result<Complete> + Sync);

/// Carries `parts` out; what they wrote, in their order. After an error nothing of it is left.
///
/// One after the other with [`Background::Manual`]: a simulation repeats itself exactly.
pub(crate) fn carry_out(work: &Work<'_>, parts: &[Part], do_part: DoPart<'_>) -> Result<Complete> {
    let mut all = Complete::new(work.io);
    if parts.len() > 1 && work.options.background == Background::Thread {
        for complete in side_by_side(work, parts, do_part)? {
            all.append(complete);
        }
        return Ok(all);
    }
    for (at, part) in parts.iter().enumerate() {
        match do_part(work, part) {
            Ok(complete) => all.append(complete),
            Err(_) if at > 0 && planted!(PartFailureForgotten) => {}
            Err(error) => {
                if at > 0 {
                    rare!(PartFailed);
                }
                return Err(error);
            }
        }
    }
    Ok(all)
}

/// Whether to go on, and why not.
#[derive(Default)]
struct Halt {
    given_up: AtomicBool,
    /// The failure that came first. Others followed from it, or do not matter any more.
    first: Mutex<Option<Error>>,
}

impl Halt {
    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    fn give_up(&self, error: Error) {
        if !self.given_up.swap(true, Ordering::Relaxed) {
            *self.first.lock() = Some(error);
        }
    }

    /// What a part came to, if it came to its end.
    fn or_give_up<T>(&self, outcome: Result<T>) -> Option<T> {
        outcome.map_err(|error| self.give_up(error)).ok()
    }
}

fn side_by_side(work: &Work<'_>, parts: &[Part], do_part: DoPart<'_>) -> Result<Vec<Complete>> {
    // All but `cancelled`: that is not for other threads, and the compiler sees to it.
    let Work {
        io,
        db,
        options,
        keys,
        epoch,
        snapshots,
        now,
        settings,
        dropped,
        next_number,
        cancelled: _,
    } = *work;
    let halt = Halt::default();
    let (ended, endings) = mpsc::channel();
    let mut done: Vec<(usize, Complete)> = Vec::with_capacity(parts.len());
    thread::scope(|scope| {
        let mut own = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let (ended, halt) = (ended.clone(), &halt);
            let in_thread = move || {
                let asked = || halt.is_given_up();
                let work = Work {
                    io,
                    db,
                    options,
                    keys,
                    epoch,
                    snapshots,
                    now,
                    settings,
                    dropped,
                    next_number,
                    cancelled: &asked,
                };
                // Nobody listens any more only where the calling thread panicked.
                let _ = ended.send((at, halt.or_give_up(do_part(&work, part))));
            };
            let named = thread::Builder::new().name("strongroom-part".into());
            let spawned = at > 0 && named.spawn_scoped(scope, hooks::carried(in_thread)).is_ok();
            if !spawned {
                own.push((at, part));
            }
        }
        drop(ended);
        let asked = || halt.is_given_up() || (work.cancelled)();
        let work = Work {
            cancelled: &asked,
            ..*work
        };
        for (at, part) in own {
            let complete = halt.or_give_up(do_part(&work, part));
            done.extend(complete.map(|complete| (at, complete)));
        }
        loop {
            match endings.recv_timeout(ASK_EVERY) {
                Ok((at, complete)) => done.extend(complete.map(|complete| (at, complete))),
                Err(RecvTimeoutError::Timeout) if (work.cancelled)() => halt.give_up(cancelled()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    });
    match halt.first.into_inner() {
        Some(error) => Err(error),
        None => {
            done.sort_unstable_by_key(|(at, _)| *at);
            Ok(done.into_iter().map(|(_, complete)| complete).collect())
        }
    }
}

//! Whether a point read will find its key in the table that it asks next, guessed from what the last ones found.
//!
//! Who mostly finds asks the filter in vain: its line of memory is far away, and the answer is yes. Who mostly does not is
//! spared everything by it. So a reader that expects to find looks into the block first, if the cache has it, and
//! asks the filter only where it would have to read. A wrong guess costs a look, never an answer. (As processors
//! guess branches, by two bits: Smith, ISCA 1981.)

use std::cell::Cell;

thread_local! {
    static FOUND: Cell<u8> = const { Cell::new(0) };
}

const SURE: u8 = 3;

/// Guesses of this thread begin anew, so that a simulated run is the same when it is run again.
pub(super) fn start_guessing() {
    FOUND.set(0);
}

pub(super) fn is_found() -> bool {
    FOUND.get() > SURE / 2
}

/// What came of it.
pub(super) fn learn(found: bool) {
    FOUND.set(match found {
        true => (FOUND.get() + 1).min(SURE),
        false => FOUND.get().saturating_sub(1),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_follows_what_is_mostly_found_and_is_not_turned_by_one_exception() {
        start_guessing();
        let guesses = |found: &[bool]| -> Vec<bool> {
            found
                .iter()
                .map(|found| {
                    learn(*found);
                    is_found()
                })
                .collect()
        };
        assert!(!is_found());
        assert_eq!(
            guesses(&[true, true, true, false, true]),
            [false, true, true, true, true]
        );
        assert_eq!(
            guesses(&[false, false, false, true, false]),
            [true, false, false, false, false]
        );
    }
}

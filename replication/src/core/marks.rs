//! How old the standby's reads are, by the primary's clock. Pure.
//!
//! The primary says where its WAL ended at some time of its own clock; once readers here see everything up to
//! there, they were current at that time. No clock of this node takes part.

use std::collections::VecDeque;

use strongroom::Lsn;

use super::message::Seen;

/// Marks remembered of where the primary's WAL ended when.
const MARKS_MAX: usize = 64;

/// Where the primary's WAL ended when: tells at what time of the primary's clock readers here were current.
#[derive(Default)]
pub struct Marks {
    applied: Lsn,
    marks: VecDeque<Seen>,
}

impl Marks {
    /// The primary's end was seen. The time this node is now known to have been current at.
    pub fn seen(&mut self, seen: Seen) -> Option<u64> {
        if self.marks.len() >= MARKS_MAX {
            // Between two others it adds little.
            self.marks.remove(MARKS_MAX / 2);
        }
        self.marks.push_back(seen);
        self.current()
    }

    /// Readers here see everything before `lsn`.
    pub fn applied(&mut self, lsn: Lsn) -> Option<u64> {
        self.applied = self.applied.max(lsn);
        self.current()
    }

    fn current(&mut self) -> Option<u64> {
        let mut newest = None;
        while let Some(mark) = self.marks.front().filter(|mark| mark.end <= self.applied) {
            newest = newest.max(Some(mark.ms));
            self.marks.pop_front();
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(end: u64, ms: u64) -> Seen {
        Seen { end: Lsn(end), ms }
    }

    #[test]
    fn marks_then_current_at_the_newest_that_is_covered() {
        let mut marks = Marks::default();
        assert_eq!(marks.seen(seen(0, 5)), Some(5));
        assert_eq!(marks.seen(seen(100, 10)), None);
        assert_eq!(marks.seen(seen(200, 20)), None);
        assert_eq!(marks.applied(Lsn(99)), None);
        assert_eq!(marks.applied(Lsn(150)), Some(10));
        assert_eq!(marks.applied(Lsn(300)), Some(20));
        assert_eq!(marks.seen(seen(250, 30)), Some(30), "already applied");
    }

    #[test]
    fn far_behind_then_marks_stay_bounded() {
        let mut marks = Marks::default();
        for i in 0..10_000 {
            marks.seen(seen(1000 + i, i));
        }
        assert!(marks.marks.len() <= MARKS_MAX);
        assert_eq!(marks.applied(Lsn(20_000)), Some(9_999));
    }
}

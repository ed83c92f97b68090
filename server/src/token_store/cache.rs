//! What is in memory of tokens: records read in this reign, and who is being revoked. It decides only; the parent
//! reads and writes the engine, between the steps and not under the lock of this:
//!
//! ```text
//! look-up      begin, read the record, finish: its record, or nothing, or begin again
//! revocation   deny, delete the record, settle
//! ```
//!
//! Invariants:
//! - A record is cached only if no revocation of its token was under way at any moment from `begin` to `finish`.
//!   So each one was over before the read, which saw what it did, or comes later, and finds what is cached.
//! - Whoever is let in holds a cached record of the reign, so that a revocation in it is seen. While held it stays.
//! - Revocations of other tokens do not make a look-up begin again: it ends, however many there are.
//! - Of a reign that is over nothing is cached, given out or taken back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strongroom::{Epoch, Error, ErrorKind, Result};

use super::{Record, TokenId};

/// Records kept in memory, about 150 bytes each. More only if calls hold them.
const RECORDS_MAX: usize = 100_000;

/// A record in memory; long calls hold on to it to see its revocation.
pub(super) struct Cached {
    pub record: Record,
    revoked: AtomicBool,
}

impl Cached {
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }
}

/// Sees a token's revocation.
#[derive(Clone)]
pub struct Watch(Arc<Cached>);

impl Watch {
    pub(super) fn new(cached: Arc<Cached>) -> Watch {
        Watch(cached)
    }

    /// Whether the token was revoked since.
    pub fn is_revoked(&self) -> bool {
        self.0.is_revoked()
    }
}

/// A look-up under way.
pub(super) struct LookUp {
    epoch: Epoch,
    id: TokenId,
}

/// What a look-up comes to.
pub(super) enum Found {
    /// The token's record, cached.
    Record(Arc<Cached>),
    /// There is no such token, or it is revoked.
    Nothing,
    /// A revocation of this token took a step meanwhile: what was read may be no more.
    Again,
}

/// What is in memory of tokens, of one reign.
#[derive(Default)]
pub(super) struct Cache {
    epoch: Epoch,
    records: HashMap<TokenId, Arc<Cached>>,
    /// Revoked, by as many revocations that are under way or of unknown outcome.
    denied: HashMap<TokenId, usize>,
    /// Under way, and not overtaken by a revocation; those that came to nothing until the next one begins. Few: the
    /// parent bounds them.
    look_ups: Vec<Arc<LookUp>>,
    /// How many records there are when the next sweep is due, if that is more than `RECORDS_MAX`.
    sweep_at: usize,
}

impl Cache {
    /// The record of a token, if it is cached.
    pub fn cached(&self, epoch: Epoch, id: TokenId) -> Option<Arc<Cached>> {
        let record = self.records.get(&id).filter(|_| self.epoch == epoch);
        record.cloned()
    }

    /// Before a record is read. Error: `Fenced`, the reign is over.
    pub fn begin(&mut self, epoch: Epoch, id: TokenId) -> Result<Arc<LookUp>> {
        self.enter(epoch);
        if self.epoch != epoch {
            return Err(reign_over());
        }
        self.look_ups.retain(|look_up| Arc::strong_count(look_up) > 1);
        let look_up = Arc::new(LookUp { epoch, id });
        self.look_ups.push(look_up.clone());
        Ok(look_up)
    }

    /// After a record was read. Error: `Fenced`, the reign is over.
    pub fn finish(&mut self, look_up: &Arc<LookUp>, record: Option<Record>) -> Result<Found> {
        if self.epoch != look_up.epoch {
            return Err(reign_over());
        }
        let id = look_up.id;
        let place = self.look_ups.iter().position(|other| Arc::ptr_eq(other, look_up));
        let overtaken = place.map(|i| self.look_ups.swap_remove(i)).is_none();
        let Some(record) = record.filter(|_| !self.denied.contains_key(&id)) else {
            return Ok(Found::Nothing);
        };
        if overtaken {
            return Ok(Found::Again);
        }
        self.make_room();
        let cached = self.records.entry(id).or_insert_with(|| {
            Arc::new(Cached {
                record,
                revoked: AtomicBool::new(false),
            })
        });
        Ok(Found::Record(cached.clone()))
    }

    /// Before records are deleted: nobody is let in with these tokens any more, and who was sees it. Says in which
    /// reign: this one or, if it is over, the one that came after it.
    pub fn deny(&mut self, epoch: Epoch, ids: &[TokenId]) -> Epoch {
        self.enter(epoch);
        for id in ids {
            self.overtake(*id);
            *self.denied.entry(*id).or_default() += 1;
        }
        self.epoch
    }

    /// After records were deleted, or not. `denied_in`: as `deny` said.
    pub fn settle(&mut self, denied_in: Epoch, ids: &[TokenId], outcome: &Result<()>) {
        for id in ids {
            // Not denied from here on: what was read before must not be cached after.
            self.overtake(*id);
            if self.epoch != denied_in {
                continue;
            }
            match outcome {
                // Gone, whatever becomes of others that try.
                Ok(()) => drop(self.denied.remove(id)),
                Err(e) if e.kind() == ErrorKind::Unknown => {}
                // This one did nothing; others may have.
                Err(_) => {
                    let others = self.denied.remove(id).map_or(0, |count| count - 1);
                    if others > 0 {
                        self.denied.insert(*id, others);
                    }
                }
            }
        }
    }

    /// Of an earlier reign nothing is kept, nor is anything of a later one disturbed.
    fn enter(&mut self, epoch: Epoch) {
        if self.epoch < epoch {
            *self = Cache {
                epoch,
                ..Cache::default()
            };
        }
    }

    /// What is known of a token, or being read, counts no more.
    fn overtake(&mut self, id: TokenId) {
        self.look_ups.retain(|look_up| look_up.id != id);
        if let Some(cached) = self.records.remove(&id) {
            cached.revoked.store(true, Ordering::Release);
        }
    }

    /// Drops what nobody holds once there is too much. What is held stays, or its holder would see no revocation;
    /// and if that is most of it, the next sweep waits until there is twice as much.
    fn make_room(&mut self) {
        if self.records.len() >= self.sweep_at.max(RECORDS_MAX) {
            self.records.retain(|_, cached| Arc::strong_count(cached) > 1);
            self.sweep_at = self.records.len() * 2;
        }
    }
}

/// A kind after which clients look for the primary again: nothing was done yet.
fn reign_over() -> Error {
    Error::new(ErrorKind::Fenced, "the reign this call began in is over")
}

#[cfg(test)]
mod tests {
    use strongroom::TenantId;

    use super::*;

    const REIGN: Epoch = Epoch::FIRST;

    fn id(number: u64) -> TokenId {
        TokenId(number.to_le_bytes())
    }

    fn record() -> Option<Record> {
        Some(Record {
            tenant: TenantId(1),
            created_ms: 2,
            salt: [3; 16],
            hash: [4; 32],
        })
    }

    fn failed(kind: ErrorKind) -> Result<()> {
        Err(Error::new(kind, "as told"))
    }

    /// A look-up that nothing disturbs and that finds a record.
    fn look_up(cache: &mut Cache, epoch: Epoch, id: TokenId) -> Found {
        let look_up = cache.begin(epoch, id).unwrap();
        cache.finish(&look_up, record()).unwrap()
    }

    fn watch(found: Found) -> Watch {
        match found {
            Found::Record(cached) => Watch::new(cached),
            Found::Nothing => panic!("nothing"),
            Found::Again => panic!("again"),
        }
    }

    #[test]
    fn revocation_ends_while_a_record_is_read_then_it_is_read_again_whatever_the_outcome() {
        for outcome in [Ok(()), failed(ErrorKind::NoSpace)] {
            let mut cache = Cache::default();
            let denied_in = cache.deny(REIGN, &[id(1)]);
            let look_up = cache.begin(REIGN, id(1)).unwrap();
            cache.settle(denied_in, &[id(1)], &outcome);
            let found = cache.finish(&look_up, record()).unwrap();
            assert!(matches!(found, Found::Again), "{outcome:?}");
            assert!(cache.cached(REIGN, id(1)).is_none());
        }
    }

    #[test]
    fn revocation_comes_and_goes_while_a_record_is_read_then_it_is_read_again_and_gone() {
        let mut cache = Cache::default();
        let look_up = cache.begin(REIGN, id(1)).unwrap();
        let denied_in = cache.deny(REIGN, &[id(1)]);
        cache.settle(denied_in, &[id(1)], &Ok(()));
        assert!(matches!(cache.finish(&look_up, record()), Ok(Found::Again)));
        let look_up = cache.begin(REIGN, id(1)).unwrap();
        assert!(matches!(cache.finish(&look_up, None), Ok(Found::Nothing)));
        assert!(cache.denied.is_empty() && cache.records.is_empty());
    }

    #[test]
    fn revocation_under_way_or_unknown_then_a_record_read_is_not_given_out() {
        let mut cache = Cache::default();
        let denied_in = cache.deny(REIGN, &[id(1)]);
        assert!(matches!(look_up(&mut cache, REIGN, id(1)), Found::Nothing));
        cache.settle(denied_in, &[id(1)], &failed(ErrorKind::Unknown));
        assert!(matches!(look_up(&mut cache, REIGN, id(1)), Found::Nothing));
    }

    #[test]
    fn revocation_fails_then_another_one_of_the_token_stays_in_force() {
        let nothing = |cache: &mut Cache| matches!(look_up(cache, REIGN, id(1)), Found::Nothing);
        let mut cache = Cache::default();
        let denied_in = cache.deny(REIGN, &[id(1)]);
        // Beside one under way.
        cache.deny(REIGN, &[id(1)]);
        cache.settle(denied_in, &[id(1)], &failed(ErrorKind::NoSpace));
        assert!(nothing(&mut cache));
        // After one of unknown outcome.
        cache.settle(denied_in, &[id(1)], &failed(ErrorKind::Unknown));
        cache.deny(REIGN, &[id(1)]);
        cache.settle(denied_in, &[id(1)], &failed(ErrorKind::NoSpace));
        assert!(nothing(&mut cache));
        // One that succeeds settles it for all.
        cache.deny(REIGN, &[id(1)]);
        cache.settle(denied_in, &[id(1)], &Ok(()));
        assert!(cache.denied.is_empty());
    }

    #[test]
    fn token_revoked_then_who_holds_its_record_sees_it() {
        let mut cache = Cache::default();
        let before = watch(look_up(&mut cache, REIGN, id(1)));
        let same = watch(look_up(&mut cache, REIGN, id(1)));
        let other = watch(look_up(&mut cache, REIGN, id(2)));
        cache.deny(REIGN, &[id(1)]);
        assert!(before.is_revoked() && same.is_revoked() && !other.is_revoked());
    }

    #[test]
    fn other_tokens_revoked_while_a_record_is_read_then_it_is_cached_at_once_and_watched() {
        let mut cache = Cache::default();
        let look_up = cache.begin(REIGN, id(1)).unwrap();
        for other in 2..100 {
            let denied_in = cache.deny(REIGN, &[id(other)]);
            cache.settle(denied_in, &[id(other)], &Ok(()));
        }
        let watch = watch(cache.finish(&look_up, record()).unwrap());
        cache.deny(REIGN, &[id(1)]);
        assert!(watch.is_revoked());
    }

    #[test]
    fn cache_full_then_what_is_held_stays_and_its_holder_sees_the_revocation() {
        let mut cache = Cache::default();
        let held = watch(look_up(&mut cache, REIGN, id(0)));
        for number in 1..=RECORDS_MAX as u64 {
            look_up(&mut cache, REIGN, id(number));
        }
        assert_eq!(cache.records.len(), 2, "the one held, and the newest");
        cache.deny(REIGN, &[id(0)]);
        assert!(held.is_revoked());
    }

    #[test]
    fn cache_full_of_held_records_then_it_grows_and_is_not_swept_each_time() {
        let mut cache = Cache::default();
        let mut held = Vec::new();
        for number in 0..=RECORDS_MAX as u64 {
            held.push(watch(look_up(&mut cache, REIGN, id(number))));
        }
        assert_eq!(cache.records.len(), RECORDS_MAX + 1);
        assert_eq!(cache.sweep_at, RECORDS_MAX * 2);
        held.clear();
        for number in 0..=RECORDS_MAX as u64 {
            look_up(&mut cache, REIGN, id(RECORDS_MAX as u64 + 1 + number));
        }
        assert!(cache.records.len() <= 2, "{}", cache.records.len());
    }

    #[test]
    fn reign_ends_while_a_record_is_read_then_refused_and_the_next_reign_has_nothing_of_it() {
        let next = REIGN.promoted();
        for read in [record(), None] {
            let mut cache = Cache::default();
            let look_up = cache.begin(REIGN, id(1)).unwrap();
            cache.begin(next, id(2)).unwrap();
            let refused = cache.finish(&look_up, read).err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::Fenced);
            assert!(cache.cached(next, id(1)).is_none());
        }
    }

    #[test]
    fn reign_over_then_no_look_up_begins_in_it_and_nothing_of_the_next_is_given_to_it() {
        let next = REIGN.promoted();
        let mut cache = Cache::default();
        watch(look_up(&mut cache, next, id(1)));
        assert!(cache.cached(REIGN, id(1)).is_none());
        assert_eq!(cache.begin(REIGN, id(1)).err().unwrap().kind(), ErrorKind::Fenced);
        assert!(cache.cached(next, id(1)).is_some());
    }

    #[test]
    fn reign_ends_during_a_revocation_then_the_next_ones_denials_stay_and_its_record_is_read_again() {
        let next = REIGN.promoted();
        for outcome in [Ok(()), failed(ErrorKind::Fenced)] {
            let mut cache = Cache::default();
            let denied_in = cache.deny(REIGN, &[id(1), id(2)]);
            let cached = watch(look_up(&mut cache, next, id(1)));
            cache.deny(next, &[id(2)]);
            cache.settle(denied_in, &[id(1), id(2)], &outcome);
            assert!(cached.is_revoked() && cache.cached(next, id(1)).is_none());
            assert!(matches!(look_up(&mut cache, next, id(2)), Found::Nothing));
        }
    }

    #[test]
    fn look_ups_come_to_nothing_then_they_are_forgotten() {
        let mut cache = Cache::default();
        for _ in 0..100 {
            // Reading failed.
            drop(cache.begin(REIGN, id(1)).unwrap());
        }
        let look_up = cache.begin(REIGN, id(1)).unwrap();
        assert_eq!(cache.look_ups.len(), 1);
        cache.finish(&look_up, record()).unwrap();
        assert!(cache.look_ups.is_empty());
    }

    /// One token in the engine, one that looks it up again and again, and revocations; each takes a step when told.
    struct Model {
        cache: Cache,
        stored: bool,
        look_up: Option<(Arc<LookUp>, Option<Option<Record>>)>,
        watches: Vec<Watch>,
        /// What each commit is to end in, how many steps it took, what it ended in.
        revocations: Vec<(Option<ErrorKind>, u8, Result<()>)>,
    }

    impl Model {
        fn look_up(&mut self) {
            self.look_up = match self.look_up.take() {
                None => Some((self.cache.begin(REIGN, id(1)).unwrap(), None)),
                Some((look_up, None)) => Some((look_up, Some(record().filter(|_| self.stored)))),
                Some((look_up, Some(read))) => {
                    if let Found::Record(cached) = self.cache.finish(&look_up, read).unwrap() {
                        self.watches.push(Watch::new(cached));
                    }
                    None
                }
            };
        }

        fn revoke(&mut self, which: usize) {
            let (planned, steps, outcome) = &mut self.revocations[which];
            match steps {
                0 => drop(self.cache.deny(REIGN, &[id(1)])),
                1 => {
                    *outcome = match planned {
                        _ if !self.stored => failed(ErrorKind::NotFound),
                        Some(kind) => failed(*kind),
                        None => Ok(()),
                    };
                    self.stored &= outcome.is_err();
                }
                2 => self.cache.settle(REIGN, &[id(1)], outcome),
                _ => {}
            }
            *steps += 1;
        }

        fn check(&self) {
            let in_force = self.revocations.iter().any(|(_, steps, outcome)| {
                let failed = outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::NoSpace);
                *steps > 2 && !failed
            });
            if in_force {
                assert!(self.cache.cached(REIGN, id(1)).is_none(), "it came back");
                assert!(self.watches.iter().all(Watch::is_revoked), "nobody told");
            }
        }
    }

    #[test]
    fn look_ups_and_two_revocations_in_any_order_then_revoked_once_one_has_returned() {
        let outcomes = [None, Some(ErrorKind::Unknown), Some(ErrorKind::NoSpace)];
        let planned = |i: usize| [outcomes[i / 3 % 3], outcomes[i % 3]];
        let runs = (0..9).flat_map(|i| (0..3usize.pow(10)).map(move |order| (i, order)));
        for (i, order) in runs {
            let mut model = Model {
                cache: Cache::default(),
                stored: true,
                look_up: None,
                watches: Vec::new(),
                revocations: planned(i).map(|kind| (kind, 0, Ok(()))).into(),
            };
            let mut rest = order;
            for _ in 0..10 {
                match rest % 3 {
                    0 => model.look_up(),
                    actor => model.revoke(actor - 1),
                }
                model.check();
                rest /= 3;
            }
        }
    }
}

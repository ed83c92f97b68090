use super::*;

const DB: [u8; 16] = [7; 16];
const E1: Epoch = Epoch::new(1, 0);
const E1R: Epoch = Epoch::new(1, 1);
const E2: Epoch = Epoch::new(2, 0);
const E3: Epoch = Epoch::new(3, 0);

fn start(epoch: Epoch, lsn: u64, chain: u8) -> EpochStart {
    EpochStart {
        epoch,
        start: Lsn(lsn),
        chain: Chain([chain; 16]),
    }
}

/// 1.0 from 0, 1.1 from 100, 2.0 from 200; WAL kept from 50 to 300.
fn history() -> Vec<EpochStart> {
    vec![start(E1, 0, 0), start(E1R, 100, 1), start(E2, 200, 2)]
}

fn primary(history: &[EpochStart]) -> Primary<'_> {
    Primary {
        database_id: DB,
        epoch: E2,
        history,
        oldest: Lsn(50),
        end: Lsn(300),
    }
}

/// A standby with whole records up to `lsn` in `epoch`, whose chain there is 9, and the epochs up to it.
fn hello(epoch: Epoch, lsn: u64) -> Hello {
    let history: Vec<_> = history().into_iter().filter(|h| h.epoch <= epoch).collect();
    Hello {
        database_id: DB,
        node: "b".into(),
        session: [1; 16],
        highest: epoch,
        history,
        durable: start(epoch, lsn, 9),
        keystore_version: 0,
    }
}

const SAME: ChainHere = ChainHere::Is(Chain([9; 16]));
const OTHER: ChainHere = ChainHere::Is(Chain([8; 16]));

fn diverged(fork_epoch: Epoch, fork: u64) -> Verdict {
    Verdict::Diverged {
        fork_epoch,
        fork: Lsn(fork),
    }
}

#[test]
fn position_table() {
    use Verdict::*;
    let behind = TooFarBehind { oldest: Lsn(50) };
    // (the standby's last record: epoch, end; what the primary finds there; verdict)
    let table = [
        // Inside each reign, and at both sides of each boundary.
        (E1, 60, SAME, Resume(Lsn(60))),
        (E1, 100, SAME, Resume(Lsn(100))),
        (E1R, 100, SAME, Resume(Lsn(100))),
        (E1R, 150, SAME, Resume(Lsn(150))),
        (E1R, 200, SAME, Resume(Lsn(200))),
        (E2, 200, SAME, Resume(Lsn(200))),
        (E2, 300, SAME, Resume(Lsn(300))),
        // Equally long, other content.
        (E2, 300, OTHER, diverged(E2, 300)),
        (E1R, 150, OTHER, diverged(E1R, 150)),
        (E1R, 150, ChainHere::NoBoundary, diverged(E1R, 150)),
        // The old primary's tail: its reign ended at 200 here, at 220 there.
        (E1R, 220, SAME, diverged(E1R, 200)),
        (E1, 120, SAME, diverged(E1, 100)),
        // A reign that has not begun at that position.
        (E2, 150, SAME, diverged(E2, 150)),
        (E1R, 90, SAME, diverged(E1R, 90)),
        // Ahead of the primary.
        (E2, 301, SAME, diverged(E2, 300)),
        // Retention.
        (E1, 50, SAME, Resume(Lsn(50))),
        (E1, 49, SAME, behind),
        (E1, 0, SAME, behind),
        (E1, 60, ChainHere::Gone, behind),
        // Nothing at all.
        (Epoch::ZERO, 0, SAME, behind),
        // Newer.
        (E3, 300, SAME, Younger(E3)),
        (E3, 10, OTHER, Younger(E3)),
    ];
    let ours = history();
    for (epoch, lsn, chain, expected) in table {
        let verdict = decide(&primary(&ours), &hello(epoch, lsn), |at| {
            assert_eq!(at, Lsn(lsn));
            chain
        });
        assert_eq!(verdict, expected, "epoch {epoch} lsn {lsn} {chain:?}");
    }
}

#[test]
fn highest_epoch_table() {
    let ours = history();
    for (highest, expected) in [
        (E1, Verdict::Resume(Lsn(150))),
        (E2, Verdict::Resume(Lsn(150))),
        (Epoch(E2.0 + 1), Verdict::Younger(Epoch(E2.0 + 1))),
        (E3, Verdict::Younger(E3)),
        (Epoch(u64::MAX), Verdict::Younger(Epoch(u64::MAX))),
    ] {
        let hello = Hello {
            highest,
            ..hello(E1R, 150)
        };
        assert_eq!(decide(&primary(&ours), &hello, |_| SAME), expected, "{highest}");
    }
}

#[test]
fn other_database_then_refused_before_anything_else() {
    let ours = history();
    let hello = Hello {
        database_id: [8; 16],
        highest: E3,
        ..hello(E3, 1000)
    };
    assert_eq!(
        decide(&primary(&ours), &hello, |_| unreachable!()),
        Verdict::WrongDatabase
    );
}

#[test]
fn short_history_then_chain_alone_decides_before_it() {
    // The primary remembers epochs from 100 on only, WAL from 50.
    let ours = history()[1..].to_vec();
    assert_eq!(
        decide(&primary(&ours), &hello(E1, 60), |_| SAME),
        Verdict::Resume(Lsn(60))
    );
    assert_eq!(
        decide(&primary(&ours), &hello(E1, 100), |_| SAME),
        Verdict::Resume(Lsn(100))
    );
    assert_eq!(
        decide(&primary(&ours), &hello(E1, 60), |_| OTHER),
        diverged(Epoch::ZERO, 0)
    );
    assert_eq!(
        decide(&primary(&[]), &hello(E1, 60), |_| SAME),
        Verdict::Resume(Lsn(60))
    );
}

/// Every pair of a primary's and a standby's history over two reigns with lengths 0..=3: the verdict is
/// Resume exactly when the standby's bytes are a prefix of the primary's.
#[test]
fn every_small_pair_of_histories_then_resume_exactly_for_prefixes() {
    // A history: bytes 0..fork of 1.0 in common, then (maybe) own bytes. `own` tells the tails apart.
    let chain = |bytes: &[u8]| {
        let mut c = [0; 16];
        c[..bytes.len()].copy_from_slice(bytes);
        Chain(c)
    };
    let build = |first: u64, second: u64, mark: u8, epoch: Epoch| {
        let mut bytes = vec![1u8; first as usize];
        bytes.extend(vec![mark; second as usize]);
        let mut epochs = vec![EpochStart {
            epoch: E1,
            start: Lsn(0),
            chain: chain(&[]),
        }];
        if epoch != E1 {
            epochs.push(EpochStart {
                epoch,
                start: Lsn(first),
                chain: chain(&bytes[..first as usize]),
            });
        }
        (bytes, epochs)
    };
    for (pf, ps) in (0..=3).flat_map(|a| (0..=3).map(move |b| (a, b))) {
        let (ours, our_history) = build(pf, ps, 2, E2);
        let oldest = Lsn(0);
        let primary = Primary {
            database_id: DB,
            epoch: E2,
            history: &our_history,
            oldest,
            end: Lsn(ours.len() as u64),
        };
        for (sf, ss) in (0..=3).flat_map(|a| (0..=3).map(move |b| (a, b))) {
            for (mark, epoch) in [(1, E1), (3, E1), (2, E2)] {
                let (theirs, their_history) = build(sf, ss, mark, epoch);
                if theirs.is_empty() {
                    continue;
                }
                let last = if ss == 0 { E1 } else { epoch };
                let hello = Hello {
                    highest: epoch,
                    history: their_history,
                    durable: EpochStart {
                        epoch: last,
                        start: Lsn(theirs.len() as u64),
                        chain: chain(&theirs),
                    },
                    ..hello(E1, 0)
                };
                let verdict = decide(&primary, &hello, |at| {
                    ours.get(..at.0 as usize)
                        .map_or(ChainHere::NoBoundary, |b| ChainHere::Is(chain(b)))
                });
                // The reign of each byte counts too: byte i is of 1.0 below the fork, of its own after.
                let reign = |i: u64, fork: u64, epoch: Epoch| if i < fork { E1 } else { epoch };
                let last_byte = theirs.len() as u64 - 1;
                let prefix =
                    ours.starts_with(&theirs) && reign(last_byte, pf, E2) == reign(last_byte, sf, epoch);
                assert_eq!(
                    verdict == Verdict::Resume(Lsn(theirs.len() as u64)),
                    prefix,
                    "primary {pf}+{ps}, standby {sf}+{ss} mark {mark} {epoch}: {verdict:?}"
                );
                assert!(
                    prefix || matches!(verdict, Verdict::Diverged { .. }),
                    "primary {pf}+{ps}, standby {sf}+{ss} mark {mark} {epoch}: {verdict:?}"
                );
            }
        }
    }
}

#[test]
fn fork_table() {
    let ours = history();
    let table: &[(&[EpochStart], u64, (Epoch, u64))] = &[
        (&ours, 300, (E2, 300)),
        (&ours, 400, (E2, 300)),
        (&ours, 250, (E2, 250)),
        (&ours[..2], 220, (E1R, 200)),
        (&ours[..2], 180, (E1R, 180)),
        (&ours[..1], 90, (E1, 90)),
        (&[start(E1, 0, 0), start(E2, 100, 1)], 150, (E1, 100)),
        (&[start(E1, 0, 5)], 90, (Epoch::ZERO, 0)),
        (&[], 0, (Epoch::ZERO, 0)),
    ];
    for (theirs, end, (epoch, fork)) in table {
        assert_eq!(
            fork_point(&ours, Lsn(300), theirs, Lsn(*end)),
            (*epoch, Lsn(*fork)),
            "{theirs:?}"
        );
    }
}

#[test]
fn fencing_table() {
    use Fencing::*;
    let table = [
        // (serves in, highest, fenced by, told) -> outcome
        (Some(E1), E1, None, E2, Record),
        (Some(E1), E1, None, E1R, Record),
        (Some(E1), E1, None, E1, NotHigher),
        (Some(E2), E2, None, E1, NotHigher),
        (Some(E1), E2, Some(E2), E2, Harmless),
        (Some(E1), E2, Some(E2), E3, Record),
        (Some(E1), E2, Some(E2), E1R, NotHigher),
        (Some(E1), E2, None, E2, Record),
        (None, E1, None, E2, Harmless),
        (None, E2, None, E2, Harmless),
        (None, E2, None, E1, NotHigher),
        (None, Epoch::ZERO, None, E1, Harmless),
    ];
    for (own, highest, fenced_by, told, expected) in table {
        assert_eq!(
            fencing(own, highest, fenced_by, told),
            expected,
            "{own:?} {highest} {fenced_by:?} {told}"
        );
    }
}

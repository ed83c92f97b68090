use super::*;
use strongroom::{Chain, EpochStart};

const E: Epoch = Epoch::new(2, 0);
const T0: Duration = Duration::ZERO;

fn progress(durable: u64) -> StandbyProgress {
    StandbyProgress {
        epoch: E,
        received: Lsn(durable),
        durable: Lsn(durable),
        applied: Lsn(durable),
        chain: Chain::default(),
    }
}

fn said_hello() -> StandbySession {
    let hello = Hello {
        database_id: [1; 16],
        node: "b".into(),
        session: [2; 16],
        history: Vec::new(),
        highest: E,
        durable: EpochStart {
            epoch: E,
            start: Lsn(100),
            chain: Chain::default(),
        },
        keystore_version: 3,
    };
    StandbySession::new(&hello, &progress(100), Duration::from_secs(15), T0)
}

fn granted(epoch: Epoch, start: u64) -> Event {
    Event::Message(FromPrimary::Ok {
        epoch,
        start: Lsn(start),
        end: Lsn(500),
        window_bytes: 1 << 20,
        heartbeat_ms: 1000,
        node: "a".into(),
    })
}

fn wal(epoch: Epoch, first: u64, len: usize) -> Event {
    Event::Message(FromPrimary::Wal {
        epoch,
        first: Lsn(first),
        bytes: Bytes::from(vec![0; len]),
        seen: Seen::default(),
    })
}

/// What matters of actions, in words.
fn words(actions: Vec<Action>) -> Vec<String> {
    let ending = |ending| match ending {
        Ending::Lost(error) => format!("lost: {:?}", error.kind()),
        Ending::Strike(_) => "strike".into(),
        Ending::PeerIsOld => "peer is old".into(),
        Ending::NeedBase { diverged, .. } => format!("base copy, diverged {diverged}"),
        Ending::Reopen(_) => "reopen".into(),
        Ending::Stopped => "stopped".into(),
    };
    let word = |action| match action {
        Action::Begin { epoch, end, node } => format!("begin {epoch} {end} {node}"),
        Action::Append { first, bytes } => format!("append {first}+{}", bytes.len()),
        Action::Acknowledge(ack) => format!("ack {} {} {}", ack.received, ack.durable, ack.applied),
        Action::AcknowledgeKeys(version) => format!("ack keys {version}"),
        Action::Heard { end, .. } => format!("heard {end}"),
        Action::Applied { .. } => "applied".into(),
        Action::End(how) => format!("end, {}", ending(how)),
    };
    actions.into_iter().map(word).collect()
}

#[test]
fn verdicts_then_the_stream_begins_or_ends_as_they_say() {
    let message = Event::Message;
    let table = [
        (granted(E, 100), vec!["begin 2.0 500 a", "ack 100 100 100"]),
        (
            granted(E.promoted(), 100),
            vec!["begin 3.0 500 a", "ack 100 100 100"],
        ),
        (granted(Epoch(E.0 - 1), 100), vec!["end, peer is old"]),
        (granted(E, 99), vec!["end, lost: Protocol"]),
        (wal(E, 100, 1), vec!["end, lost: Protocol"]),
        (
            message(FromPrimary::Diverged {
                fork_epoch: E,
                fork: Lsn(1),
            }),
            vec!["end, base copy, diverged true"],
        ),
        (
            message(FromPrimary::TooFarBehind { oldest: Lsn(400) }),
            vec!["end, base copy, diverged false"],
        ),
        (
            message(FromPrimary::NotPrimary { epoch: E }),
            vec!["end, lost: Refused"],
        ),
        (
            message(FromPrimary::Younger { epoch: E }),
            vec!["end, lost: Refused"],
        ),
        (
            message(FromPrimary::WrongDatabase),
            vec!["end, lost: WrongDatabase"],
        ),
    ];
    for (event, expected) in table {
        let text = format!("{event:?}");
        assert_eq!(words(said_hello().step(T0, event)), expected, "{text}");
    }
}

#[test]
fn wal_twice_or_with_a_gap_or_of_another_reign_then_never_appended() {
    for spoiled in [
        wal(E, 100, 10),
        wal(E, 111, 10),
        wal(E.promoted(), 110, 10),
        granted(E, 110),
    ] {
        let mut session = said_hello();
        session.step(T0, granted(E, 100));
        assert_eq!(
            words(session.step(T0, wal(E, 100, 10))),
            ["append 100+10", "heard 110"]
        );
        let text = format!("{spoiled:?}");
        assert_eq!(
            words(session.step(T0, spoiled)),
            ["end, lost: Protocol"],
            "{text}"
        );
        assert!(session.step(T0, wal(E, 110, 10)).is_empty(), "over is over");
    }
}

#[test]
fn synced_then_acknowledged_exactly_what_the_engine_reported() {
    let mut session = said_hello();
    session.step(T0, granted(E, 100));
    session.step(T0, wal(E, 100, 50));
    let progress = StandbyProgress {
        received: Lsn(150),
        durable: Lsn(140),
        applied: Lsn(130),
        ..progress(0)
    };
    assert_eq!(
        words(session.step(T0, Event::Synced(progress))),
        ["ack 150 140 130"]
    );
    assert_eq!(words(session.step(T0, Event::KeysApplied(9))), ["ack keys 9"]);
}

#[test]
fn silence_as_long_as_the_patience_then_lost() {
    let seconds = Duration::from_secs;
    let mut session = said_hello();
    session.step(seconds(5), granted(E, 100));
    assert!(session.step(seconds(19), Event::Tick).is_empty());
    assert_eq!(
        words(session.step(seconds(20), Event::Tick)),
        ["end, lost: Unreachable"]
    );
}

#[test]
fn engine_errors_table() {
    let table = [
        (EngineKind::Closed, "end, stopped"),
        (EngineKind::Diverged, "end, base copy, diverged true"),
        (EngineKind::Fenced, "end, peer is old"),
        (EngineKind::ReadOnly, "end, reopen"),
        (EngineKind::Io, "end, reopen"),
        (EngineKind::NoSpace, "end, lost: Engine"),
        (EngineKind::Corruption, "end, strike"),
        (EngineKind::Invalid, "end, strike"),
        (EngineKind::KeyRefused, "end, strike"),
    ];
    for (kind, expected) in table {
        let error = Error::from(strongroom::Error::new(kind, "x"));
        assert_eq!(
            words(said_hello().step(T0, Event::Failed(error))),
            [expected],
            "{kind:?}"
        );
    }
}

#[test]
fn sync_is_due_when_nothing_more_arrived_or_bytes_or_time_are_up() {
    let mut debt = SyncDebt::default();
    assert!(!debt.due(false, T0), "nothing appended");
    debt.appended(10, T0);
    assert!(debt.due(false, T0));
    assert!(!debt.due(true, T0));
    assert!(debt.due(true, SYNC_AFTER));
    debt.appended(SYNC_BYTES_MAX, T0);
    assert!(debt.due(true, T0));
    debt.settled();
    assert!(!debt.due(false, SYNC_AFTER));
}

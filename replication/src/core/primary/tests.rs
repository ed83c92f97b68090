use super::*;

const E: Epoch = Epoch::new(2, 0);
const T0: Duration = Duration::ZERO;

fn session() -> PrimarySession {
    let limits = Limits {
        window: 1 << 20,
        chunk: 100,
        patience: Duration::from_secs(15),
    };
    PrimarySession::new(E, Lsn(1000), limits, T0)
}

fn read(first: u64, len: usize, keystore: u64) -> Event {
    Event::Read {
        first: Lsn(first),
        bytes: Bytes::from(vec![0; len]),
        keystore,
    }
}

fn ack(epoch: Epoch, durable: u64) -> Event {
    Event::Ack(Ack {
        epoch,
        received: Lsn(durable),
        durable: Lsn(durable),
        applied: Lsn(durable),
    })
}

/// What matters of actions, in words.
fn words(actions: Vec<Action>) -> Vec<String> {
    let word = |action| match action {
        Action::Send(FromPrimary::Wal { first, bytes, .. }) => format!("wal {first}+{}", bytes.len()),
        Action::Send(FromPrimary::Heartbeat { .. }) => "heartbeat".into(),
        Action::Send(FromPrimary::TooFarBehind { oldest }) => format!("too far behind {oldest}"),
        Action::Send(other) => format!("{other:?}"),
        Action::Confirm { epoch, lsn } => format!("confirm {lsn} of {epoch}"),
        Action::Pin(lsn) => format!("pin {lsn}"),
        Action::End(reason) => format!("end: {reason}"),
    };
    actions.into_iter().map(word).collect()
}

#[test]
fn wal_whose_keys_are_not_acknowledged_then_held_and_nothing_read_behind_it() {
    let mut session = session();
    assert!(
        session
            .step(T0, Event::KeysBegin { since: 0, current: 7 })
            .is_empty()
    );
    session.step(T0, Event::KeysSent(7));
    assert!(session.step(T0, read(1000, 50, 7)).is_empty());
    assert_eq!(session.room(), 0);
    assert!(
        session.step(T0, Event::KeysAcked(6)).is_empty(),
        "one version short"
    );
    assert_eq!(words(session.step(T0, Event::KeysAcked(7))), ["wal 1000+50"]);
    assert_eq!(session.room(), 100);
    assert_eq!(words(session.step(T0, read(1050, 10, 7))), ["wal 1050+10"]);
}

#[test]
fn keys_acknowledged_that_were_never_sent_then_the_stream_ends() {
    let mut session = session();
    session.step(T0, Event::KeysBegin { since: 3, current: 7 });
    session.step(T0, Event::KeysSent(5));
    assert_eq!(
        words(session.step(T0, Event::KeysAcked(6))),
        ["end: a key acknowledgement that cannot be"]
    );
    assert!(session.step(T0, Event::Heartbeat).is_empty(), "over is over");
    let mut session = self::session();
    let begin = Event::KeysBegin { since: 8, current: 7 };
    assert_eq!(
        words(session.step(T0, begin)),
        ["end: a keystore version from the future"]
    );
}

#[test]
fn acknowledgement_of_this_reign_then_confirmed_and_of_an_older_one_then_only_progress() {
    let mut session = session();
    session.step(T0, read(1000, 100, 0));
    assert_eq!(words(session.step(T0, ack(Epoch(E.0 - 1), 1040))), ["pin 1040"]);
    let confirmed = words(session.step(T0, ack(E, 1100)));
    assert_eq!(
        confirmed,
        ["pin 1100".to_string(), format!("confirm 1100 of {E}")]
    );
    assert_eq!(
        words(session.step(T0, ack(E, 1101))),
        ["end: an acknowledgement out of order"]
    );
}

#[test]
fn bytes_outstanding_without_progress_then_the_watchdog_ends_it_and_progress_rests_it() {
    let seconds = Duration::from_secs;
    let mut session = session();
    assert!(
        session.step(seconds(100), Event::Tick).is_empty(),
        "nothing is sent"
    );
    session.step(seconds(100), read(1000, 100, 0));
    session.step(seconds(110), ack(E, 1050));
    assert!(
        session.step(seconds(125), Event::Tick).is_empty(),
        "progress at 110"
    );
    assert_eq!(
        words(session.step(seconds(126), Event::Tick)),
        ["end: no durable progress"]
    );
}

#[test]
fn retention_overtakes_then_the_standby_hears_it_and_the_stream_ends() {
    let mut session = session();
    assert_eq!(
        words(session.step(T0, Event::Gone { oldest: Lsn(5000) })),
        ["too far behind 5000", "end: retention overtook it"]
    );
    assert_eq!(session.room(), 0);
}

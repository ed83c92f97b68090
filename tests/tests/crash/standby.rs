//! The power fails on a standby: while it takes its base copy, while it follows, while it reopens, while
//! it is promoted and after; and while a backup is restored.
//!
//! The primary works undisturbed. For every operation of the standby's disk and each manner of losing
//! what was not synced, the standby is opened again on what is left:
//!
//! - an unfinished base copy is refused, or nothing yet, and can be started over;
//! - a finished one opens, and stands at or behind what was sent, at or past what it acknowledged;
//! - its content is the primary's at exactly that position;
//! - once promoted, it holds everything it acknowledged as a standby and as a primary.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::io::sim::{CrashMode, Fault, SimFs, Times};
use strongroom::keys::{EscrowSecret, KeyChanges};
use strongroom::{
    BaseCopyReceiver, Engine, Epoch, ErrorKind, Lsn, Options, Result, Role, checkpoint_files, restore,
};
use strongroom_tests::dice::{Dice, fresh_seed};
use strongroom_tests::keys::SimKeys;
use strongroom_tests::oracle::{Content, difference, read_all};
use strongroom_tests::world::{
    World, is_failure_of_the_machine, key_of, name_of_space, name_of_tenant, read_restored,
};

use super::number;

const DIR: &str = "/srv/standby";

/// What a primary has to send.
struct Sent {
    files: Vec<(String, Vec<u8>)>,
    base_keys: KeyChanges,
    /// Keys of a tenant that came after the base copy.
    later_keys: KeyChanges,
    /// From the base copy's position on.
    start: Lsn,
    wal: Vec<u8>,
    /// Content after each position, the base copy's first.
    points: Vec<(Lsn, Content)>,
}

fn options() -> Options {
    let mut options = Options::tiny();
    options.segment_bytes = 4 << 10;
    options
}

fn primary() -> Result<Sent> {
    let mut world = World::new(options());
    world.open()?;
    for n in 1..=2 {
        world.create_tenant(&name_of_tenant(n))?;
        world.put(&name_of_tenant(n), "a", 1, 30)?;
    }
    world.flush()?;
    world.put(&name_of_tenant(1), "b", 1, 30)?;
    let pin = world.engine().pin_wal(Lsn::ZERO);
    let start = world.engine().checkpoint("/srv/copy")?.position.lsn;
    let base_keys = world.engine().key_changes(0);
    let files = checkpoint_files("/srv/copy", &world.fs.io(fresh_seed()))?
        .into_iter()
        .map(|(name, _)| {
            let content = world
                .fs
                .content(Path::new("/srv/copy").join(&name))
                .expect("just listed");
            (name, content)
        })
        .collect();
    let mut points = vec![(start, world.visible())];
    let version = world.engine().keystore_version();
    world.create_tenant(&name_of_tenant(3))?;
    let later_keys = world.engine().key_changes(version);
    for i in 0..12 {
        let tenant = name_of_tenant(1 + i % 3);
        // A keyspace is created by a commit of its own: a point, too.
        world.keyspace(&tenant, &name_of_space("a"))?;
        points.push((world.engine().status().written, world.visible()));
        world.put(&tenant, "a", i, 40 + 100 * i as usize)?;
        points.push((world.engine().status().written, world.visible()));
    }
    let end = world.engine().status().durable;
    let mut cursor = world.engine().wal_cursor(start)?;
    let mut wal = Vec::new();
    while cursor.position() < end {
        wal.extend_from_slice(&cursor.read(1 << 20, Duration::from_secs(5))?);
    }
    drop(pin);
    Ok(Sent {
        files,
        base_keys,
        later_keys,
        start,
        wal,
        points,
    })
}

/// How far the standby's owner was told it is.
#[derive(Clone, Default)]
struct Told {
    finished: bool,
    durable: Lsn,
    knows_third: bool,
    /// 1: `promote` was called, 2: it returned Ok.
    promoted: u8,
    /// The reign it returned: never to be used by another opening.
    epoch: Epoch,
    /// Keys put after the promotion: submitted, acknowledged.
    puts: (u64, u64),
}

fn open(fs: &SimFs, keys: &SimKeys, role: Role) -> Result<Engine> {
    let builder = Engine::builder(DIR)
        .shared_keys(keys.provider())
        .options(options());
    builder
        .role(role)
        .create_if_missing(false)
        .io(fs.io(fresh_seed()))
        .open()
}

fn copy(fs: &SimFs, keys: &SimKeys, sent: &Sent) -> Result<()> {
    let mut receiver = BaseCopyReceiver::start(DIR, fs.io(fresh_seed()), keys.provider())?;
    receiver.keys(&sent.base_keys)?;
    for (name, bytes) in &sent.files {
        for (i, part) in bytes.chunks(1000).enumerate() {
            receiver.chunk(name, 1000 * i as u64, part)?;
        }
        if bytes.is_empty() {
            receiver.chunk(name, 0, &[])?;
        }
    }
    receiver.finish()
}

/// Sends up to `until`, in pieces that know no records, and syncs now and then.
fn follow(engine: &Engine, sent: &Sent, told: &Mutex<Told>, until: usize, dice: &mut Dice) -> Result<()> {
    loop {
        let progress = engine.standby_progress()?;
        let from = (progress.received.0 - sent.start.0) as usize;
        if from >= until {
            break;
        }
        let to = until.min(from + 1 + dice.below(900) as usize);
        engine.standby_append(progress.received, &sent.wal[from..to])?;
        if dice.percent(40) {
            let progress = engine.standby_sync()?;
            told.lock().unwrap().durable = progress.durable;
        }
    }
    let progress = engine.standby_sync()?;
    told.lock().unwrap().durable = progress.durable;
    Ok(())
}

/// The whole life of a standby.
fn live(fs: &SimFs, keys: &SimKeys, sent: &Sent, told: &Mutex<Told>) -> Result<()> {
    let mut dice = Dice::new(7);
    copy(fs, keys, sent)?;
    {
        let mut told = told.lock().unwrap();
        told.finished = true;
        told.durable = sent.start;
    }
    let engine = open(fs, keys, Role::Standby)?;
    engine.apply_key_changes(&sent.later_keys)?;
    told.lock().unwrap().knows_third = true;
    follow(&engine, sent, told, sent.wal.len() / 3, &mut dice)?;
    drop(engine);
    let engine = open(fs, keys, Role::Standby)?;
    follow(&engine, sent, told, 2 * sent.wal.len() / 3, &mut dice)?;
    engine.flush()?;
    engine.close()?;
    let engine = open(fs, keys, Role::Standby)?;
    follow(&engine, sent, told, sent.wal.len(), &mut dice)?;
    told.lock().unwrap().promoted = 1;
    let promotion = engine.promote()?;
    {
        let mut told = told.lock().unwrap();
        told.promoted = 2;
        told.epoch = promotion.epoch;
    }
    for i in 0..3 {
        told.lock().unwrap().puts.0 = i + 1;
        engine
            .tenant(&name_of_tenant(1))?
            .keyspace(&name_of_space("after"))?
            .put(key_of(i), "v")?;
        told.lock().unwrap().puts.1 = i + 1;
    }
    engine.close()
}

/// The primary's content at the last point at or below `applied`, the third tenant as the keystore has it.
fn expected(sent: &Sent, applied: Lsn, third: bool) -> Content {
    let (_, content) = sent
        .points
        .iter()
        .rev()
        .find(|(lsn, _)| *lsn <= applied)
        .expect("the base copy");
    let mut content = content.clone();
    content
        .remove(&name_of_tenant(3))
        .filter(|_| third)
        .map(|c| content.insert(name_of_tenant(3), c));
    if third {
        content.entry(name_of_tenant(3)).or_default();
    }
    content
}

/// Opens what is left and says what is wrong with it.
fn examine(fs: &SimFs, keys: &SimKeys, sent: &Sent, told: &Told) -> std::result::Result<(), String> {
    // A promoted standby is reopened as what it was last told to be.
    let roles: &[Role] = match told.promoted {
        0 => &[Role::Standby],
        1 => &[Role::Standby, Role::Primary],
        _ => &[Role::Primary],
    };
    for role in roles {
        let (fs, keys) = (fs.fork(), keys.fork());
        let engine = match open(&fs, &keys, *role) {
            Ok(engine) => engine,
            // Not promoted yet: then it is a standby, which the other pass opens.
            Err(e) if told.promoted == 1 && *role == Role::Primary && e.kind() == ErrorKind::NotPrimary => {
                continue;
            }
            Err(e) if told.finished => return Err(format!("{role:?} does not open: {e:?}")),
            Err(e) if matches!(e.kind(), ErrorKind::Invalid | ErrorKind::NotFound) => {
                copy(&fs, &keys, sent).map_err(|e| format!("cannot be started over: {e:?}"))?;
                open(&fs, &keys, Role::Standby).map_err(|e| format!("started over, does not open: {e:?}"))?
            }
            Err(e) => return Err(format!("an unfinished copy is not refused as such: {e:?}")),
        };
        let mut found = read_all(&engine).map_err(|e| format!("cannot be read: {e:?}"))?;
        if told.knows_third && !found.contains_key(&name_of_tenant(3)) {
            return Err("lost a key change".into());
        }
        let third = found.contains_key(&name_of_tenant(3));
        let applied = match role {
            Role::Standby => {
                let progress = engine.standby_progress().map_err(|e| format!("{e:?}"))?;
                if progress.durable < told.durable {
                    return Err(format!(
                        "acknowledged {}, durable is {}",
                        told.durable, progress.durable
                    ));
                }
                if progress.applied > progress.durable || progress.durable > progress.received {
                    return Err(format!("positions out of order: {progress:?}"));
                }
                progress.applied
            }
            // A primary has written on; as a standby it had received everything.
            Role::Primary => sent.points.last().expect("points").0,
        };
        if *role == Role::Primary && engine.status().epoch <= told.epoch {
            return Err(format!(
                "reopened in epoch {}, after {}",
                engine.status().epoch,
                told.epoch
            ));
        }
        if told.promoted > 0 {
            check_puts(&mut found, told)?;
        }
        let expected = expected(sent, applied, third);
        if found != expected {
            let mut text = format!("{role:?} at {applied} holds something else:");
            difference(&expected, &found, &mut text);
            return Err(text);
        }
        go_on(&engine, sent, *role, told).map_err(|e| format!("does not go on: {e:?}"))?;
    }
    Ok(())
}

/// What was put after the promotion: acknowledged ones, and one more at most.
fn check_puts(found: &mut Content, told: &Told) -> std::result::Result<(), String> {
    let space = found
        .get_mut(&name_of_tenant(1))
        .and_then(|t| t.remove(&name_of_space("after")));
    let puts = space.map_or(0, |entries| entries.len() as u64);
    if (told.puts.1..=told.puts.0).contains(&puts) {
        return Ok(());
    }
    Err(format!(
        "{puts} keys after the promotion, acknowledged {}, submitted {}",
        told.puts.1, told.puts.0
    ))
}

/// After a crash a standby follows to the end and is promoted; a primary writes.
fn go_on(engine: &Engine, sent: &Sent, role: Role, told: &Told) -> Result<()> {
    if role == Role::Standby && told.promoted == 0 {
        if told.finished || engine.standby_progress().is_ok() {
            engine.apply_key_changes(&sent.later_keys)?;
        }
        let told = Mutex::new(told.clone());
        follow(engine, sent, &told, sent.wal.len(), &mut Dice::new(1))?;
        assert_eq!(read_all(engine)?, sent.points.last().expect("points").1);
    }
    if role == Role::Standby {
        engine.promote()?;
    }
    engine
        .tenant(&name_of_tenant(2))?
        .keyspace(&name_of_space("a"))?
        .put(key_of(9), "goes on")?;
    engine.close()
}

#[test]
fn every_operation_of_a_standby_may_be_the_last() {
    let sent = Arc::new(primary().unwrap());
    let (fs, keys, told) = (
        SimFs::new(),
        SimKeys::new(),
        Arc::new(Mutex::new(Told::default())),
    );
    let moments = Arc::new(Mutex::new(Vec::new()));
    let (to, keys_then, told_then) = (moments.clone(), keys.clone(), told.clone());
    fs.probe(move |op, fork| {
        to.lock().unwrap().push((
            op.clone(),
            fork.clone(),
            keys_then.fork(),
            told_then.lock().unwrap().clone(),
        ));
    });
    live(&fs, &keys, &sent, &told).unwrap();
    fs.clear_probe();
    let moments = std::mem::take(&mut *moments.lock().unwrap());
    let first = number("STRONGROOM_SEED", 0);
    let mut seen = HashSet::new();
    for (op, fs, keys, told) in &moments {
        let random = (first..first + number("STRONGROOM_CRASH_SEEDS", 3)).map(|s| (CrashMode::KeepRandom, s));
        for (mode, seed) in [(CrashMode::DropAll, 0), (CrashMode::KeepAll, 0)]
            .into_iter()
            .chain(random)
        {
            let image = fs.crashed_image(mode, seed);
            if seen.insert((
                image.digest(),
                told.durable,
                told.promoted,
                told.puts,
                told.knows_third,
            )) {
                examine(&image, keys, &sent, told).unwrap_or_else(|why| {
                    panic!("before operation {op:?}, {mode:?} with seed {seed}: {why}");
                });
            }
        }
    }
    println!(
        "standby: {} operations, {} disks examined",
        moments.len(),
        seen.len()
    );
}

#[test]
fn every_operation_of_a_standby_may_fail() {
    let sent = primary().unwrap();
    let fs = SimFs::new();
    live(&fs, &SimKeys::new(), &sent, &Mutex::default()).unwrap();
    for at in 1..=fs.ops() {
        let (fs, keys, told) = (SimFs::new(), SimKeys::new(), Mutex::new(Told::default()));
        fs.fail(Fault::io_error(at, Times::Once));
        if let Err(e) = live(&fs, &keys, &sent, &told) {
            assert!(
                is_failure_of_the_machine(&e),
                "operation {at} fails: an error of the wrong kind: {e:?}"
            );
        }
        let told = told.into_inner().unwrap();
        for image in [fs.fork(), fs.crashed_image(CrashMode::DropAll, 0)] {
            examine(&image, &keys, &sent, &told).unwrap_or_else(|why| panic!("operation {at} fails: {why}"));
        }
    }
}

#[test]
fn every_operation_of_a_restore_may_be_the_last() {
    let mut world = World::new(options());
    world.open().unwrap();
    for n in 1..=2 {
        world.create_tenant(&name_of_tenant(n)).unwrap();
        world.put(&name_of_tenant(n), "a", 1, 30).unwrap();
    }
    world.flush().unwrap();
    world.put(&name_of_tenant(1), "b", 1, 30).unwrap();
    let content = world.visible();
    let secret: Arc<EscrowSecret> = world.secret.clone();
    let escrow = world.engine().escrow(&secret.recipient()).unwrap();
    world.engine().checkpoint("/srv/copy").unwrap();
    world.close().unwrap();

    let (fs, keys) = (world.fs.fork(), SimKeys::new());
    let moments = Arc::new(Mutex::new(Vec::new()));
    let (to, keys_then) = (moments.clone(), keys.clone());
    fs.probe(move |op, fork| {
        to.lock()
            .unwrap()
            .push((op.clone(), fork.clone(), keys_then.fork()))
    });
    let again = |fs: &SimFs, keys: &SimKeys| {
        restore(
            "/srv/copy",
            &escrow,
            &secret,
            "/srv/new",
            keys.provider(),
            &fs.io(fresh_seed()),
        )
    };
    again(&fs, &keys).unwrap();
    fs.clear_probe();
    let check = |fs: &SimFs, keys: &SimKeys, what: &str| {
        let found = read_restored(Path::new("/srv/new"), keys, fs, &options());
        assert_eq!(
            found.unwrap_or_else(|e| panic!("{what}: {e:?}")),
            content,
            "{what}"
        );
    };
    check(&fs.crashed_image(CrashMode::DropAll, 0), &keys, "finished");
    for (op, fs, keys) in std::mem::take(&mut *moments.lock().unwrap()) {
        for (mode, seed) in [
            (CrashMode::DropAll, 0),
            (CrashMode::KeepAll, 0),
            (CrashMode::KeepRandom, 1),
            (CrashMode::KeepRandom, 2),
        ] {
            let (image, keys) = (fs.crashed_image(mode, seed), keys.fork());
            let what = format!("before operation {op:?}, {mode:?} with seed {seed}");
            let opened = Engine::builder("/srv/new")
                .shared_keys(keys.provider())
                .options(options())
                .io(image.io(fresh_seed()))
                .create_if_missing(false)
                .open();
            match opened {
                Ok(engine) => {
                    let found = read_all(&engine).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                    assert_eq!(found, content, "{what}");
                    assert!(
                        engine.status().awaiting_acceptance,
                        "{what}: serves without acceptance"
                    );
                }
                Err(e) => {
                    let refused = matches!(e.kind(), ErrorKind::Invalid | ErrorKind::NotFound);
                    assert!(
                        refused,
                        "{what}: an unfinished restore is not refused as such: {e:?}"
                    );
                    again(&image, &keys).unwrap_or_else(|e| panic!("{what}: cannot be started over: {e:?}"));
                    check(&image, &keys, &what);
                }
            }
        }
    }
}

/// A fence and the acceptance of a restored database are decisions: once the call has returned, no crash
/// undoes them.
#[test]
fn every_operation_of_a_decision_may_be_the_last() {
    let mut world = World::new(options());
    world.open().unwrap();
    world.create_tenant(&name_of_tenant(1)).unwrap();
    world.put(&name_of_tenant(1), "a", 1, 30).unwrap();
    let escrow = world.engine().escrow(&world.secret.recipient()).unwrap();
    world.engine().checkpoint("/srv/copy").unwrap();
    world.close().unwrap();
    let io = world.fs.io(fresh_seed());
    restore(
        "/srv/copy",
        &escrow,
        &world.secret,
        DIR,
        world.keys.provider(),
        &io,
    )
    .unwrap();
    let (fs, keys) = (&world.fs, &world.keys);

    let newer = Epoch::FIRST.promoted().promoted().promoted();
    let decided = Arc::new(Mutex::new(0));
    let moments = Arc::new(Mutex::new(Vec::new()));
    let (to, decided_then, keys_then) = (moments.clone(), decided.clone(), keys.clone());
    fs.probe(move |op, fork| {
        to.lock().unwrap().push((
            op.clone(),
            fork.clone(),
            keys_then.fork(),
            *decided_then.lock().unwrap(),
        ));
    });
    let put = |engine: &Engine| engine.tenant(&name_of_tenant(1))?.keyspace("b")?.put("k", "v");
    let engine = open(fs, keys, Role::Primary).unwrap();
    assert_eq!(put(&engine).unwrap_err().kind(), ErrorKind::ReadOnly);
    engine.accept_restored().unwrap();
    *decided.lock().unwrap() = 1;
    put(&engine).unwrap();
    engine.fence(newer).unwrap();
    *decided.lock().unwrap() = 2;
    assert_eq!(put(&engine).unwrap_err().kind(), ErrorKind::Fenced);
    drop(engine);
    let engine = open(fs, keys, Role::Primary).unwrap();
    assert_eq!(put(&engine).unwrap_err().kind(), ErrorKind::Fenced);
    engine.close().unwrap();
    fs.clear_probe();

    for (op, fs, keys, decided) in std::mem::take(&mut *moments.lock().unwrap()) {
        for (mode, seed) in [
            (CrashMode::DropAll, 0),
            (CrashMode::KeepAll, 0),
            (CrashMode::KeepRandom, 1),
        ] {
            let what = format!("before operation {op:?}, {mode:?} with seed {seed}");
            let (image, keys) = (fs.crashed_image(mode, seed), keys.fork());
            let engine = open(&image, &keys, Role::Primary).unwrap_or_else(|e| panic!("{what}: {e:?}"));
            let status = engine.status();
            match decided {
                0 => assert_eq!(status.fenced_by, None, "{what}"),
                1 => assert!(!status.awaiting_acceptance, "{what}: acceptance is forgotten"),
                _ => assert_eq!(status.fenced_by, Some(newer), "{what}: the fence is forgotten"),
            }
            let expected = match (status.awaiting_acceptance, status.fenced_by) {
                (_, Some(_)) => Err(ErrorKind::Fenced),
                (true, None) => Err(ErrorKind::ReadOnly),
                (false, None) => Ok(()),
            };
            assert_eq!(put(&engine).map(drop).map_err(|e| e.kind()), expected, "{what}");
        }
    }
}

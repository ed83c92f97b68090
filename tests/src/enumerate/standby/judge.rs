//! What is wrong with what is left of a standby.

use strongroom::{Engine, ErrorKind, Lsn, Result, Role};

use super::{Standby, Told};
use crate::dice::Dice;
use crate::enumerate::{Check, Depth};
use crate::oracle::{Content, difference, read_all};
use crate::world::{key_of, name_of_space, name_of_tenant};

/// Opens what is left, in every role it may have, and says what is wrong with it.
pub(super) fn examine(standby: &Standby, depth: Depth) -> Check {
    let told = standby.told.lock().unwrap().clone();
    // A promoted standby is reopened as what it was last told to be.
    let roles: &[Role] = match told.promoted {
        0 => &[Role::Standby],
        1 => &[Role::Standby, Role::Primary],
        _ => &[Role::Primary],
    };
    let Some((last, others)) = roles.split_last() else {
        return Ok(());
    };
    for role in others {
        in_role(&standby.on(&standby.fs), &told, *role, depth)?;
    }
    in_role(standby, &told, *last, depth)
}

fn in_role(standby: &Standby, told: &Told, role: Role, depth: Depth) -> Check {
    let engine = match standby.open(role) {
        Ok(engine) => engine,
        // Not promoted yet: then it is a standby, which the other pass opens.
        Err(e) if told.promoted == 1 && role == Role::Primary && e.kind() == ErrorKind::NotPrimary => {
            return Ok(());
        }
        Err(e) if told.finished => return Err(format!("{role:?} does not open: {e:?}")),
        Err(e) if matches!(e.kind(), ErrorKind::Invalid | ErrorKind::NotFound) => {
            standby
                .copy()
                .map_err(|e| format!("cannot be started over: {e:?}"))?;
            standby
                .open(Role::Standby)
                .map_err(|e| format!("started over, does not open: {e:?}"))?
        }
        Err(e) => return Err(format!("an unfinished copy is not refused as such: {e:?}")),
    };
    let applied = position(standby, told, &engine, role)?;
    content(standby, told, &engine, role, applied)?;
    match depth {
        Depth::Work(_) => {
            go_on(standby, told, &engine, role).map_err(|e| format!("does not go on: {e:?}"))?
        }
        Depth::Open | Depth::Look => Ok(()),
    }
}

/// Positions are in order, at or past what was acknowledged; the one that content must be of.
fn position(standby: &Standby, told: &Told, engine: &Engine, role: Role) -> std::result::Result<Lsn, String> {
    match role {
        Role::Standby => {
            let progress = engine.standby_progress().map_err(|e| format!("{e:?}"))?;
            if progress.durable < told.durable {
                let (acknowledged, durable) = (told.durable, progress.durable);
                return Err(format!("acknowledged {acknowledged}, durable is {durable}"));
            }
            if progress.applied > progress.durable || progress.durable > progress.received {
                return Err(format!("positions out of order: {progress:?}"));
            }
            Ok(progress.applied)
        }
        Role::Primary => {
            if engine.status().epoch <= told.epoch {
                let (found, before) = (engine.status().epoch, told.epoch);
                return Err(format!("reopened in epoch {found}, after {before}"));
            }
            // A primary has written on; as a standby it had received everything.
            Ok(standby.sent.points.last().expect("points").0)
        }
    }
}

fn content(standby: &Standby, told: &Told, engine: &Engine, role: Role, applied: Lsn) -> Check {
    let mut found = read_all(engine).map_err(|e| format!("cannot be read: {e:?}"))?;
    let version = engine.keystore_version();
    let Some(keys) = standby.sent.steps(version).filter(|keys| *keys >= told.keys) else {
        return Err(format!("lost a key change: the keystore is of version {version}"));
    };
    if !standby.keys.live_versions().is_disjoint(&told.condemned) {
        return Err("a tenant is deleted, but what unwraps its keys is left".to_string());
    }
    if told.promoted > 0 {
        check_puts(&mut found, told)?;
    }
    let expected = standby.sent.content(applied, keys);
    if found != expected {
        let mut text = format!("{role:?} at {applied} holds something else:");
        difference(&expected, &found, &mut text);
        return Err(text);
    }
    Ok(())
}

/// What was put after the promotion: acknowledged ones, and one more at most.
fn check_puts(found: &mut Content, told: &Told) -> Check {
    let space = found
        .get_mut(&name_of_tenant(1))
        .and_then(|t| t.remove(&name_of_space("after")));
    let puts = space.map_or(0, |entries| entries.len() as u64);
    if (told.puts.1..=told.puts.0).contains(&puts) {
        return Ok(());
    }
    let (submitted, acknowledged) = told.puts;
    Err(format!(
        "{puts} keys after the promotion, acknowledged {acknowledged}, submitted {submitted}"
    ))
}

/// A standby follows to the end and is promoted; a primary writes.
fn go_on(standby: &Standby, told: &Told, engine: &Engine, role: Role) -> Result<Check> {
    if role == Role::Standby && told.promoted == 0 {
        standby.take_keys(engine, standby.sent.keys.len() - 1)?;
        standby.follow(engine, standby.sent.wal.len(), &mut Dice::new(1))?;
        let steps = standby.sent.keys.len() - 1;
        let end = standby.sent.points.last().expect("points").0;
        if read_all(engine)? != standby.sent.content(end, steps) {
            return Ok(Err("holds something else after following to the end".to_string()));
        }
    }
    if role == Role::Standby {
        engine.promote()?;
    }
    let space = engine.tenant(&name_of_tenant(1))?.keyspace(&name_of_space("a"))?;
    space.put(key_of(9), "goes on")?;
    drop(space);
    Ok(Ok(()))
}

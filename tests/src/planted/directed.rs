//! Tests for rules that no crash and no failing call can show: what someone else did to the bytes.

use std::path::PathBuf;
use std::time::Duration;

use strongroom::hooks::parsers;
use strongroom::io::sim::SimFs;
use strongroom::{Compression, Engine, ErrorKind, Options, Retention};

use crate::enumerate::{Check, spliced_log_is_refused};
use crate::world::{DIR, World, key_of, name_of_space, name_of_tenant};

fn database(keys: u64) -> World {
    // Blocks of equal entries have equal lengths.
    let mut options = Options::tiny();
    options.compression = Compression::None;
    let mut world = World::new(options);
    let fill = |world: &mut World| {
        world.open()?;
        world.create_tenant(&name_of_tenant(1))?;
        for key in 0..keys {
            world.put(&name_of_tenant(1), "a", key, 300)?;
        }
        world.flush()?;
        world.close()
    };
    fill(&mut world).unwrap();
    world
}

/// Two blocks of one table change places: each was sealed for its own.
pub(super) fn exchanged_blocks() -> Check {
    let world = database(KEYS);
    let files = world.fs.files();
    let is_table = |path: &&PathBuf| path.starts_with(format!("{DIR}/tables"));
    let path = files.keys().find(is_table).ok_or("no table")?;
    // Blocks hold one entry each: the key that a damaged byte takes away tells whose block it was in.
    let owner = |at: usize| -> Option<usize> {
        let fs = world.fs.fork();
        fs.corrupt(path, |bytes| bytes[at] ^= 1);
        gets(&world, &fs).ok()?.iter().position(|value| value.is_none())
    };
    let end = files[path].len();
    let inside = |key| (0..end).step_by(64).find(|at| owner(*at) == Some(key));
    // First byte of a key's block: between a byte of the one before and a byte of its own.
    let first = |key: usize| -> Option<usize> {
        let (mut before, mut own) = (inside(key - 1)?, inside(key)?);
        while own - before > 1 {
            let middle = (before + own) / 2;
            match owner(middle) == Some(key) {
                true => own = middle,
                false => before = middle,
            }
        }
        Some(own)
    };
    let [a, b, c] = [3, 4, 5].map(first);
    let (a, b, c) = (a.ok_or("no block")?, b.ok_or("no block")?, c.ok_or("no block")?);
    if b - a != c - b {
        return Err(format!("blocks of different lengths: {a} {b} {c}"));
    }
    let fs = world.fs.fork();
    fs.corrupt(path, |bytes| {
        let (one, other) = bytes.split_at_mut(b);
        one[a..].swap_with_slice(&mut other[..c - b]);
    });
    let found = gets(&world, &fs).map_err(|e| format!("{e:?}"))?;
    // An error for both, and for nothing else.
    let refused: Vec<usize> = (0..found.len()).filter(|key| found[*key].is_none()).collect();
    match refused == [3, 4] {
        true => Ok(()),
        false => Err(format!(
            "two blocks are exchanged, and keys {refused:?} are refused"
        )),
    }
}

const KEYS: u64 = 8;

/// What each key reads as; None where reading fails.
fn gets(world: &World, fs: &SimFs) -> strongroom::Result<Vec<Option<Option<bytes::Bytes>>>> {
    let mut world = world.moment("").world_on(fs.clone());
    world.open()?;
    let tenant = world.engine().tenant(&name_of_tenant(1))?;
    let space = tenant.open_keyspace(&name_of_space("a"))?;
    Ok((0..KEYS).map(|key| space.get(key_of(key)).ok()).collect())
}

/// The keystore of another database, which has a tenant of this id and name, too: the wrong key is told
/// apart from damage, before anything is decrypted.
pub(super) fn foreign_keystore() -> Check {
    let (own, other) = (database(2), database(2));
    let fs = own.fs.fork();
    let keystore = format!("{DIR}/keystore");
    let of_keystore = |world: &World| -> Vec<(PathBuf, Vec<u8>)> {
        let files = world.fs.files().into_iter();
        files.filter(|(path, _)| path.starts_with(&keystore)).collect()
    };
    for ((path, _), (_, bytes)) in of_keystore(&own).iter().zip(of_keystore(&other)) {
        fs.corrupt(path, |own| *own = bytes);
    }
    let opened = Engine::builder(DIR)
        .shared_keys(other.keys.provider())
        .options(Options::tiny())
        .io(fs.io(crate::dice::fresh_seed()))
        .open();
    match opened {
        Err(e) if e.kind() == ErrorKind::KeyRefused => Ok(()),
        Err(e) => Err(format!("a wrong key is taken for something else: {e:?}")),
        Ok(_) => Err("a wrong key opens the database".to_string()),
    }
}

/// The log of a killed database's keystore ends at an earlier frame: tenants that nothing was written to would be gone,
/// and their ids given away again. Verifying tells of it; opening is refused, and refused again after a refusal; `flushed`:
/// also when the log of writes that knew them has gone.
pub(super) fn cut_keystore_log(flushed: bool) -> Check {
    let mut world = World::new(Options::tiny());
    let fill = |world: &mut World| {
        world.open()?;
        (1..=3).try_for_each(|n| world.create_tenant(&name_of_tenant(n)).map(drop))?;
        if flushed { world.flush() } else { Ok(()) }
    };
    fill(&mut world).map_err(|e| e.to_string())?;
    let files = world.fs.files();
    let (path, log) = files
        .iter()
        .find(|(path, bytes)| {
            path.starts_with(format!("{DIR}/keystore/")) && bytes.windows(4).any(|w| w == b"KOP1")
        })
        .ok_or("no log with frames")?;
    let builder = |fs: &SimFs| {
        let builder = Engine::builder(DIR).shared_keys(world.keys.provider());
        builder
            .options(Options::tiny())
            .io(fs.io(crate::dice::fresh_seed()))
    };
    let open = |fs: &SimFs| builder(fs).open();
    let damages = |fs: &SimFs| {
        let verified = builder(fs).verify().map_err(|e| format!("not verified: {e:?}"))?;
        Ok::<usize, String>(verified.damages.len())
    };
    let ends = (0..log.len()).filter(|at| log[*at..].starts_with(b"KOP1"));
    for end in ends {
        let fs = world.fs.fork();
        fs.corrupt(path, |log| log.truncate(end));
        if damages(&fs)? == 0 {
            return Err(format!("{end} bytes: verified without a damage"));
        }
        for attempt in ["first", "second"] {
            match open(&fs) {
                Err(e) if e.kind() == ErrorKind::Corruption => {}
                Err(e) => return Err(format!("{end} bytes, {attempt}: taken for something else: {e:?}")),
                Ok(_) => return Err(format!("{end} bytes, {attempt}: opens without its tenants")),
            }
        }
    }
    if damages(&world.fs.fork())? > 0 {
        return Err("as it was left: damaged".to_string());
    }
    let whole = open(&world.fs.fork()).map_err(|e| format!("as it was left: {e:?}"))?;
    match whole.tenants().len() {
        3 => Ok(()),
        n => Err(format!("as it was left: {n} of 3 tenants")),
    }
}

/// A machine is cloned while its database is open, with its kernel's random bits, and both write on: what one wrote
/// must not tell of what the other did. Sealed by one key stream, two ciphertexts differ by what the plaintexts do.
pub(super) fn cloned_machine() -> Check {
    let world = database(1);
    let files_after = |value: u8| -> strongroom::Result<_> {
        let fs = world.fs.fork();
        let mut options = Options::tiny();
        options.compression = Compression::None;
        let builder = Engine::builder(DIR).shared_keys(world.keys.provider());
        let engine = builder.options(options).io(fs.io(1)).open()?;
        let space = engine
            .tenant(&name_of_tenant(1))?
            .open_keyspace(&name_of_space("a"))?;
        for key in 0..100 {
            space.put(key_of(key), [value; 200])?;
        }
        engine.flush()?;
        engine.close()?;
        Ok(fs.files())
    };
    let both = files_after(1).and_then(|one| Ok((one, files_after(2)?)));
    let (one, other) = both.map_err(|e| format!("{e:?}"))?;
    let mut compared = 0;
    for (path, bytes) in &one {
        let before = world.fs.content(path);
        let Some(theirs) = other
            .get(path)
            .filter(|theirs| *theirs != bytes && before.is_none())
        else {
            continue;
        };
        compared += 1;
        let differ: Vec<u8> = bytes.iter().zip(theirs).map(|(a, b)| a ^ b).collect();
        if let Some(at) = differ
            .windows(64)
            .position(|part| part.iter().all(|byte| *byte == 1 ^ 2))
        {
            return Err(format!(
                "{} of a clone tells what its twin wrote, at {at}",
                path.display()
            ));
        }
    }
    match compared {
        0 | 1 => Err(format!(
            "{compared} files that both clones wrote: no log, or no table"
        )),
        _ => Ok(()),
    }
}

/// A tenant with two large values in a keyspace that got a retention of a day after they were put, and twenty in
/// another, so that their file is not garbage for the most part when those end. `compacted`: between put and retention.
fn ruled(compacted: bool) -> strongroom::Result<World> {
    let mut options = Options::tiny();
    options.expiry_grace = Duration::ZERO;
    // Small files are emptied in passing.
    options.compression = Compression::None;
    let mut world = World::new(options);
    world.open()?;
    world.create_tenant(&name_of_tenant(1))?;
    for (space, keys) in [("a", 2), ("b", 20)] {
        for key in 0..keys {
            world.put(&name_of_tenant(1), space, key, 2000)?;
        }
    }
    if compacted {
        world.compact()?;
    }
    let day = Some(Retention::Days(1));
    world.set_retention(&name_of_tenant(1), &name_of_space("a"), day)?;
    Ok(world)
}

/// Values in value files.
fn values_apart(world: &World) -> u64 {
    world.engine().stats().values.values
}

/// What has a deadline for leaving the disk stays in the tree.
pub(super) fn ruled_values() -> Check {
    let world = ruled(false).and_then(|mut world| world.compact().map(|()| world));
    let world = world.map_err(|e| format!("{e:?}"))?;
    match values_apart(&world) {
        20 => world.check(),
        other => Err(format!("{other} values are apart, of 20 without a retention")),
    }
}

/// What stood apart when its keyspace got a retention leaves the disk when it has ended.
pub(super) fn ended_values() -> Check {
    let world = ruled(true).and_then(|world| {
        world.clock().advance(Duration::from_secs(24 * 3600 + 2));
        while world.engine().step()? {}
        Ok(world)
    });
    let world = world.map_err(|e| format!("{e:?}"))?;
    match values_apart(&world) {
        20 => world.check(),
        other => Err(format!("{other} values are apart, of 20 that have not ended")),
    }
}

/// A record of another history at the position where the log goes on.
pub(super) fn spliced_log() -> Check {
    spliced_log_is_refused()
}

/// A compressed block that states one byte more, or less, than it gives.
pub(super) fn wrong_length() -> Check {
    let all = parsers::all();
    let block = all.iter().find(|parser| parser.name == "table_block");
    let block = block.ok_or("no parser of blocks")?;
    // Codec 3, then entries, then the length.
    let samples = (block.samples)();
    let sample = samples.iter().find(|sample| sample.first() == Some(&3));
    let sample = sample.ok_or("no compressed block among the samples")?;
    if !(block.check)(sample) {
        return Err("the sample is refused".to_string());
    }
    for change in [1, -1] {
        let mut other = sample.clone();
        let length = &mut other[5..9];
        let stated = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        length.copy_from_slice(&stated.wrapping_add_signed(change).to_le_bytes());
        if (block.check)(&other) {
            return Err(format!("a length that is wrong by {change} is accepted"));
        }
    }
    Ok(())
}

/// Writers that are slowed down, on the machines of some seeds.
pub(super) fn pacing() -> Check {
    (0..6).try_for_each(strongroom::hooks::pacing)
}

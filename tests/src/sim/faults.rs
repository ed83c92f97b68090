//! Faults that a call reports, and calls beyond what is allowed.

use std::time::Duration;

use bytes::Bytes;
use strongroom::io::sim::{Fault, Times};
use strongroom::{Engine, ErrorKind, KEY_BYTES_MAX, NAME_BYTES_MAX, TenantOptions};

use super::run::{Done, Run, Wrong};
use super::strikes;
use crate::layers::counted;
use crate::world::{DIR, key_of, name_of_space, name_of_tenant};

impl Run {
    /// A call fails, `after` calls from now.
    pub fn fail(&mut self, kind: u64, after: u64, forever: bool) {
        use ErrorKind as K;
        let fs = &self.world.fs;
        let times = if forever { Times::Forever } else { Times::Once };
        let (fault, kinds): (Fault, &[ErrorKind]) = match kind {
            0 => (
                Fault::io_error(fs.ops() + after, times),
                &[K::Io, K::ReadOnly, K::Unknown],
            ),
            1 => (
                Fault::disk_full(fs.ops() + after, times),
                &[K::NoSpace, K::ReadOnly, K::Unknown],
            ),
            _ => (
                Fault::read_error(fs.reads() + after, times),
                &[K::Io, K::ReadOnly],
            ),
        };
        fs.fail(fault);
        self.explain(kinds);
    }

    /// The manners of the disk stay.
    pub fn take_faults_away(&mut self) {
        let fs = &self.world.fs;
        fs.clear_faults();
        fs.set_capacity(None);
        fs.set_late_allocation(false);
        fs.set_handles_max(None);
    }

    /// What struck since the last time.
    pub fn count_strikes(&mut self) {
        let strikes = self.world.fs.take_strikes();
        strikes::count(&mut self.counters, strikes);
    }

    /// A second process gets no database.
    pub fn second_opener(&mut self) -> Done {
        self.counters.add(counted::row(21), 1);
        let second = Engine::builder(DIR)
            .shared_keys(self.world.keys.provider())
            .options(self.world.options.clone())
            .io(self.world.io_on(&self.world.fs))
            .open();
        match second {
            Err(e) if e.kind() == ErrorKind::Locked => Ok(()),
            Err(e) => Err(e.into()),
            Ok(_) => Err(Wrong::Failure("two engines have one directory".into())),
        }
    }

    /// The longest key is fine; longer and empty keys, and longer names, are refused.
    pub fn limits(&mut self, tenant: u64, space: u64, synced: u64) -> Done {
        self.counters.add(counted::row(22), 1);
        let key = |len: usize| {
            let mut key = key_of(0).to_vec();
            key.resize(len, b'+');
            Bytes::from(key)
        };
        let space_name = name_of_space(&space.to_string());
        self.write(
            tenant,
            vec![(space_name.clone(), key(KEY_BYTES_MAX), Some(Bytes::new()))],
            synced,
        )?;
        let name = name_of_tenant(tenant);
        let exists = self
            .world
            .visible()
            .get(&name)
            .is_some_and(|s| s.contains_key(&space_name));
        if !self.certain(&name) || !exists || self.doubtful.contains(&format!("{name}/{space_name}")) {
            return Ok(());
        }
        let engine = self.world.engine();
        let tenant = engine.tenant(&name)?;
        let space = tenant.open_keyspace(&space_name)?;
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        let refused = [
            space.put(key(KEY_BYTES_MAX + 1), b"").map(drop),
            space.put(b"", b"").map(drop),
            engine.create_tenant(&long, TenantOptions::default()).map(drop),
            engine.create_tenant("", TenantOptions::default()).map(drop),
            tenant.keyspace(&long).map(drop),
        ];
        for (n, result) in refused.into_iter().enumerate() {
            match result {
                Err(e) if e.kind() == ErrorKind::Invalid => {}
                Err(e) => return Err(e.into()),
                Ok(()) => return Err(Wrong::Failure(format!("beyond limit {n}, and taken"))),
            }
        }
        Ok(())
    }

    /// So many bytes of room; `late` when only a sync finds out.
    pub fn room(&mut self, bytes: u64, late: bool) {
        let fs = &self.world.fs;
        fs.set_late_allocation(late);
        fs.set_capacity(Some(fs.used() + bytes));
        self.explain(match late {
            true => &[ErrorKind::NoSpace, ErrorKind::ReadOnly, ErrorKind::Unknown],
            false => &[ErrorKind::NoSpace],
        });
    }

    /// So many more handles.
    pub fn handles(&mut self, spare: u64) {
        let fs = &self.world.fs;
        fs.set_handles_max(Some(fs.open_handles() + fs.held_locks() + spare));
        self.explain(&[ErrorKind::Io, ErrorKind::ReadOnly, ErrorKind::Unknown]);
    }

    /// Every sync takes so long, until the power is cut.
    pub fn hang_syncs(&mut self, ms: u64) {
        self.world.hang_syncs(Duration::from_millis(ms));
    }
}

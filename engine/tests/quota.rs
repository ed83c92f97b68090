//! Quotas: a tenant that has its fill is refused puts, and nothing else; whatever happens to the database meanwhile.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod machine;

use std::time::Duration;

use machine::{Db, Machine};
use strongroom::io::sim::CrashMode;
use strongroom::*;

fn fresh() -> Machine {
    Machine::with(|_| {})
}

impl Db {
    fn bytes(&self) -> u64 {
        self.tenant.usage().unwrap().bytes()
    }

    /// Puts until it is refused; how often it was not.
    fn fill(&self) -> u32 {
        for n in 0..10_000u32 {
            match self.keyspace.put(n.to_be_bytes(), [7; 200]) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::QuotaExceeded => return n,
                Err(e) => panic!("{e:?}"),
            }
        }
        panic!("never refused");
    }
}

fn refused<T>(outcome: Result<T>) {
    assert_eq!(outcome.map(drop).unwrap_err().kind(), ErrorKind::QuotaExceeded);
}

#[test]
fn at_its_quota_a_tenant_may_delete_and_nothing_else_and_others_do_not_notice() {
    let machine = fresh();
    let db = machine.open();
    let other = db.engine.create_tenant("o", TenantOptions::default()).unwrap();
    let beside = other.keyspace("k").unwrap();
    db.tenant.set_quota(50_000).unwrap();
    assert_eq!(db.tenant.quota().unwrap(), Some(50_000));
    assert_eq!(other.quota().unwrap(), None);
    let put = db.fill();
    assert!((150..250).contains(&put), "{put}");
    assert!((50_000..50_300).contains(&db.bytes()), "{}", db.bytes());
    refused(db.keyspace.put("more", "v"));
    let ttl = PutOptions::new().ttl(Duration::from_secs(1));
    refused(db.keyspace.put_with("more", "v", ttl));
    refused(db.tenant.keyspace("another"));
    let both = db.tenant.batch().delete(&db.keyspace, [0, 0, 0, 1]);
    refused(both.put(&db.keyspace, "more", "v").commit());
    assert!(
        db.keyspace.get([0, 0, 0, 1]).unwrap().is_some(),
        "nothing of it was written"
    );
    let mut transaction = db.tenant.transaction();
    transaction.put(&db.keyspace, "more", "v");
    refused(transaction.commit());
    beside.put("more", [7; 1000]).unwrap();
    // It reads, deletes, sets a retention, and deletes keyspaces.
    assert!(db.keyspace.get([0, 0, 0, 0]).unwrap().is_some());
    db.keyspace.delete([0, 0, 0, 0]).unwrap();
    db.tenant.set_retention(&db.keyspace, Retention::Days(3)).unwrap();
    db.tenant.delete_keyspace("k").unwrap();
}

#[test]
fn deleted_data_gives_room_when_compaction_comes_by_and_so_does_a_larger_quota() {
    let machine = fresh();
    let db = machine.open();
    db.tenant.set_quota(100_000).unwrap();
    let put = db.fill();
    for n in 0..put {
        db.keyspace.delete(n.to_be_bytes()).unwrap();
    }
    refused(db.keyspace.put("more", "v"));
    db.engine.compact().unwrap();
    assert!(db.bytes() < 1000, "{}", db.bytes());
    let again = db.fill();
    assert!(again.abs_diff(put) < put / 4, "{again} and {put}");
    db.tenant.set_quota(200_000).unwrap();
    db.keyspace.put("more", "v").unwrap();
    db.tenant.set_quota(1).unwrap();
    refused(db.keyspace.put("more", "v"));
    db.tenant.set_quota(None).unwrap();
    db.keyspace.put("more", "v").unwrap();
    assert_eq!(db.tenant.quota().unwrap(), None);
}

#[test]
fn what_a_quota_counts_is_what_usage_tells_through_every_flush_compaction_and_reopening() {
    let mut machine = fresh();
    let mut db = machine.open();
    for round in 0..120u32 {
        // Whatever it is now: one byte less is refused, one more is not.
        let has = db.bytes();
        db.tenant.set_quota(has).unwrap();
        refused(db.keyspace.put("probe", "v"));
        db.tenant.set_quota(has + 1).unwrap();
        db.keyspace.put((round % 40).to_be_bytes(), [7; 900]).unwrap();
        match round % 6 {
            0 => db.engine.flush().unwrap(),
            1 | 2 => drop(db.engine.step().unwrap()),
            3 if round % 4 == 1 => db.engine.compact().unwrap(),
            4 if round % 8 == 2 => {
                db.engine.close().unwrap();
                db = machine.open();
            }
            5 if round % 5 == 0 => {
                drop(db);
                machine.fs = machine.fs.crashed_image(CrashMode::DropAll, 1);
                db = machine.open();
            }
            _ => {}
        }
        assert_eq!(db.tenant.quota().unwrap(), Some(has + 1));
    }
}

#[test]
fn a_standby_applies_what_its_primary_accepted_and_refuses_once_it_is_promoted() {
    let (machine, other) = (fresh(), fresh());
    let db = machine.open();
    db.engine.checkpoint("/copy").unwrap();
    let mut receiver = BaseCopyReceiver::start("/db", other.io(), other.keys.clone()).unwrap();
    receiver.keys(&db.engine.key_changes(0)).unwrap();
    for (name, _) in checkpoint_files("/copy", &machine.io()).unwrap() {
        let bytes = machine.fs.content(format!("/copy/{name}")).unwrap();
        receiver.chunk(&name, 0, &bytes).unwrap();
    }
    receiver.finish().unwrap();
    let standby = other.builder().role(Role::Standby).open().unwrap();
    // Written first, forbidden later: for the standby it is there all the same.
    for n in 0..20u32 {
        db.keyspace.put(n.to_be_bytes(), [7; 200]).unwrap();
    }
    db.tenant.set_quota(1000).unwrap();
    db.keyspace.delete(3u32.to_be_bytes()).unwrap();
    let at = standby.standby_progress().unwrap().received;
    let mut cursor = db.engine.wal_cursor(at).unwrap();
    let bytes = cursor.read(1 << 20, Duration::ZERO).unwrap();
    standby.standby_append(at, &bytes).unwrap();
    standby.standby_sync().unwrap();
    let tenant = standby.tenant("t").unwrap();
    let keyspace = tenant.open_keyspace("k").unwrap();
    assert_eq!(keyspace.iter().count(), 19);
    assert_eq!(tenant.quota().unwrap(), Some(1000));
    standby.promote().unwrap();
    refused(keyspace.put("more", "v"));
    keyspace.delete(4u32.to_be_bytes()).unwrap();
}

#[test]
fn a_quota_goes_with_its_tenant_and_the_system_tenant_has_none() {
    let machine = fresh();
    let db = machine.open();
    db.tenant.set_quota(1).unwrap();
    db.engine.delete_tenant("t").unwrap();
    assert_eq!(db.tenant.quota().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(db.tenant.set_quota(9).unwrap_err().kind(), ErrorKind::NotFound);
    let again = db.engine.create_tenant("t", TenantOptions::default()).unwrap();
    assert_eq!(again.quota().unwrap(), None);
    again.keyspace("k").unwrap().put("k", "v").unwrap();
    let system = db.engine.system().set_quota(1);
    assert_eq!(system.unwrap_err().kind(), ErrorKind::Invalid);
}

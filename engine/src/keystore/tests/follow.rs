//! Two keystores kept equal by changes.

use super::*;

/// A second keystore that begins with what the first has now.
fn follower(of: &Keystore, seed: u64) -> (World, Keystore) {
    let world = World::new(seed);
    let full = of.export();
    let keystore = Keystore::create(Path::new(DIR), &world.io, world.provider(), Some(&full)).unwrap();
    assert_eq!(content(&keystore), content(of));
    (world, keystore)
}

#[test]
fn changes_bring_a_second_keystore_to_the_same_content() {
    let world = World::new(40);
    let primary = world.create();
    primary.create_tenants(&["a", "b", "c"]).unwrap();
    let (there, standby) = follower(&primary, 41);
    let follow = |full: bool| {
        let changes = primary.changes_since(standby.version());
        assert_eq!(changes.full, full);
        let changes = KeyChanges::decode(&changes.encode()).unwrap();
        standby.apply(&changes).unwrap();
        assert_eq!(content(&standby), content(&primary));
        // Again, and something older: fine.
        standby.apply(&changes).unwrap();
        assert_eq!(content(&standby), content(&primary));
    };
    follow(false);
    primary.create_tenants(&["d"]).unwrap();
    follow(false);
    primary.delete_tenants(&[TenantId(1)]).unwrap();
    primary.create_tenants(&["a", "e"]).unwrap();
    primary.delete_tenants(&[TenantId(2), TenantId(4)]).unwrap();
    let versions = there.keys.versions();
    let dead = dek(&standby, TenantId(2));
    follow(false);
    assert_ne!(
        there.keys.versions(),
        versions,
        "the standby's root is replaced too"
    );
    assert_eq!(there.keys.versions().len(), 1);
    assert!(matches!(
        standby.find(TenantId(2), DekVersion(1)),
        KeyLookup::Destroyed
    ));
    assert!(!holds(&there.files(), &dead));
    standby.apply(&primary.changes_since(0)).unwrap();
    assert_eq!(content(&standby), content(&primary));
    // The primary forgets its steps when it is reopened.
    primary.create_tenants(&["f"]).unwrap();
    drop(primary);
    let primary = world.open();
    assert!(!primary.changes_since(primary.version()).full);
    assert!(primary.changes_since(2).full);
    standby.apply(&primary.changes_since(standby.version())).unwrap();
    let before = content(&primary);
    drop(standby);
    assert_eq!(content(&there.open()), before);
}

#[test]
fn tenant_that_came_and_went_unheard_of_then_the_second_keystore_opens_again() {
    let world = World::new(52);
    let primary = world.create();
    let (there, standby) = follower(&primary, 53);
    primary.create_tenants(&["a", "b"]).unwrap();
    primary.delete_tenants(&[TenantId(1)]).unwrap();
    let versions = there.keys.versions();
    standby.apply(&primary.changes_since(standby.version())).unwrap();
    assert_eq!(content(&standby), content(&primary));
    assert_eq!(there.keys.versions(), versions, "nothing of it was here");
    primary.create_tenants(&["c"]).unwrap();
    standby.apply(&primary.changes_since(standby.version())).unwrap();
    drop(standby);
    assert_eq!(content(&there.open()), content(&primary));
}

#[test]
fn full_set_that_lacks_a_tenant_destroys_it_and_one_that_only_adds_keeps_the_root() {
    let world = World::new(42);
    let primary = world.create();
    primary.create_tenants(&["a", "b"]).unwrap();
    let (there, standby) = follower(&primary, 43);
    primary.create_tenants(&["c"]).unwrap();
    let versions = there.keys.versions();
    standby.apply(&primary.export()).unwrap();
    assert_eq!(there.keys.versions(), versions);
    primary.delete_tenants(&[TenantId(1)]).unwrap();
    let old = there.with_disk(there.fs.fork());
    standby.apply(&primary.export()).unwrap();
    assert_eq!(content(&standby), content(&primary));
    assert_eq!(old.try_open().err().unwrap().kind(), ErrorKind::KeyRefused);
    assert!(matches!(
        standby.find(TenantId(1), DekVersion(1)),
        KeyLookup::Destroyed
    ));
}

#[test]
fn keystores_whose_histories_parted_are_told_and_made_equal_by_a_full_set() {
    let world = World::new(44);
    let one = world.create();
    one.create_tenants(&["a"]).unwrap();
    let (_there, two) = follower(&one, 45);
    one.create_tenants(&["x"]).unwrap();
    two.create_tenants(&["y"]).unwrap();
    two.create_tenants(&["z"]).unwrap();
    let kind = one.apply(&two.changes_since(2)).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::Diverged);
    let lost = dek(&one, TenantId(2));
    one.apply(&two.export()).unwrap();
    assert_eq!(content(&one), content(&two));
    assert!(!holds(&world.files(), &lost));
    assert_eq!(world.keys.versions().len(), 1);
}

#[test]
fn many_steps_are_forgotten_and_a_receiver_far_behind_gets_everything() {
    let world = World::new(46);
    let keystore = world.create();
    let names: Vec<String> = (0..12_000).map(|i| format!("{i}")).collect();
    for part in names.chunks(3000) {
        keystore
            .create_tenants(&part.iter().map(String::as_str).collect::<Vec<_>>())
            .unwrap();
    }
    assert!(keystore.changes_since(1).full);
    let recent = keystore.changes_since(2);
    assert!(!recent.full);
    assert_eq!(recent.upserts.len(), 9000);
}

#[test]
fn waiting_ends_with_a_change_and_with_time() {
    let world = World::new(47);
    let keystore = world.create();
    assert_eq!(keystore.wait(1, Duration::from_millis(1)), 1);
    assert_eq!(keystore.wait(0, Duration::from_secs(60)), 1);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| keystore.wait(1, Duration::from_secs(60)));
        keystore.create_tenants(&["a"]).unwrap();
        assert_eq!(waiter.join().unwrap(), 2);
        let waiter = scope.spawn(|| keystore.wait(2, Duration::from_secs(60)));
        keystore.close().unwrap();
        assert_eq!(waiter.join().unwrap(), 2);
    });
}

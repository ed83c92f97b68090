use super::*;

#[test]
fn a_destroyed_tenant_reads_as_empty_and_is_not_touched() {
    let place = Place::new(1 << 22);
    let mut random = Random(1);
    let content = content(&mut random, &[1, 2], 300, 100);
    let table = place.table(SMALL, &content);
    let entry = content[&TenantId(1)].entries()[0].clone();
    assert_eq!(
        collect(table.cursor(TenantId(1)).unwrap()).unwrap().len(),
        content[&TenantId(1)].0.len()
    );
    let held = place.cache.usage();

    place.destroy(TenantId(1));
    assert!(place.cache.usage().bytes < held.bytes);
    let reads = place.fs.reads();
    assert_eq!(table.get(TenantId(1), &entry.key, SeqNo::MAX).unwrap(), None);
    check_cursor(&mut table.cursor(TenantId(1)).unwrap(), &[], &mut random, 20);
    check_cursor(&mut table.sweep(TenantId(1)).unwrap(), &[], &mut random, 20);
    assert!(table.span(TenantId(1)).unwrap().is_none());
    assert_eq!(place.fs.reads(), reads, "nothing of it was read");
    // The clear directory still knows its size, so that compaction can drop it undecrypted.
    assert_eq!(
        table.run(TenantId(1)).unwrap().entries,
        content[&TenantId(1)].0.len() as u64
    );
    assert_eq!(
        collect(table.cursor(TenantId(2)).unwrap()).unwrap(),
        content[&TenantId(2)].entries()
    );
    // Opening needs no key at all.
    place.open(table.meta()).unwrap();
}

#[test]
fn nothing_of_a_tenant_destroyed_while_reading_stays_in_the_cache() {
    let place = Place::new(1 << 22);
    let mut random = Random(1);
    let content = content(&mut random, &[1], 2000, 1000);
    let table = place.table(SMALL, &content);
    let mut cursor = table.cursor(TenantId(1)).unwrap();
    cursor.seek_first().unwrap();
    place.destroy(TenantId(1));
    // A cursor made before goes on with the key it holds, but leaves nothing behind.
    let mut seen = 0;
    while cursor.entry().is_some() {
        seen += 1;
        cursor.next().unwrap();
    }
    assert_eq!(seen, content[&TenantId(1)].0.len());
    assert_eq!(place.cache.usage().pieces, 0);
}

#[test]
fn a_wrong_key_is_told_apart_from_damage() {
    let place = Place::new(1 << 20);
    let mut random = Random(1);
    let content = content(&mut random, &[1, 2], 20, 10);
    let table = place.table(SMALL, &content);
    let key = content[&TenantId(1)].entries()[0].key.clone();

    place.source.tenants.lock().insert(TenantId(1), (1, 99));
    place.keys.purge_if(|other| other == TenantId(1));
    let error = table.get(TenantId(1), &key, SeqNo::MAX).unwrap_err();
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::KeyRefused, Some(table.path()))
    );
    let mut cursor = table.cursor(TenantId(1)).unwrap();
    assert_eq!(cursor.seek_first().unwrap_err().kind(), ErrorKind::KeyRefused);
    let swept = table.sweep(TenantId(1));
    assert_eq!(swept.err().unwrap().kind(), ErrorKind::KeyRefused);

    place.source.tenants.lock().remove(&TenantId(1));
    let error = table.get(TenantId(1), &key, SeqNo::MAX).unwrap_err();
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::Corruption, Some(table.path()))
    );

    place.source.tenants.lock().insert(TenantId(1), (1, 1));
    place.keys.purge_if(|other| other == TenantId(1));
    assert!(table.get(TenantId(1), &key, SeqNo::MAX).unwrap().is_some());
    // A later key version of the tenant seals new tables; this one keeps its own.
    place.source.tenants.lock().insert(TenantId(1), (2, 1));
    assert!(table.get(TenantId(1), &key, SeqNo::MAX).unwrap().is_some());
}

#[test]
fn a_builder_refuses_a_destroyed_tenant_and_goes_on_with_the_next() {
    let place = Place::new(1 << 20);
    place.destroy(TenantId(2));
    let mut builder = place.builder(SMALL);
    builder
        .add(TenantId(1), put(b"\0\0\0\0a", 1, b"x").view())
        .unwrap();
    for _ in 0..2 {
        let error = builder
            .add(TenantId(2), put(b"\0\0\0\0a", 1, b"x").view())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    builder
        .add(TenantId(3), put(b"\0\0\0\0a", 1, b"x").view())
        .unwrap();
    let table = place.open(&builder.finish().unwrap()).unwrap();
    assert_eq!(
        table.tenants().map(|run| run.tenant.0).collect::<Vec<_>>(),
        [1, 3]
    );
}

#[test]
fn entries_out_of_order_or_impossible_are_refused() {
    let place = Place::new(1 << 20);
    let mut builder = place.builder(SMALL);
    let add = |builder: &mut TableBuilder, tenant, entry: &Entry| {
        builder
            .add(TenantId(tenant), entry.view())
            .map_err(|error| error.kind())
    };
    add(&mut builder, 2, &put(b"b", 5, b"")).unwrap();
    for (tenant, entry) in [
        (2, put(b"b", 5, b"")),
        (2, put(b"b", 6, b"")),
        (2, put(b"a", 1, b"")),
        (1, put(b"c", 1, b"")),
    ] {
        assert_eq!(add(&mut builder, tenant, &entry), Err(ErrorKind::Corruption));
    }
    let deleted = Entry {
        kind: EntryKind::Delete,
        ..put(b"c", 1, b"value")
    };
    for entry in [put(b"", 1, b""), put(&[1; 4 + (16 << 10) + 1], 1, b""), deleted] {
        assert_eq!(add(&mut builder, 2, &entry), Err(ErrorKind::Invalid));
    }
    add(&mut builder, 2, &put(b"b", 4, b"")).unwrap();
    add(&mut builder, 3, &put(b"a", 9, b"")).unwrap();
    assert_eq!(builder.entries(), 3);
    assert_eq!(place.open(&builder.finish().unwrap()).unwrap().meta().entries, 3);
}

#[test]
fn an_abandoned_or_empty_builder_leaves_no_file() {
    let place = Place::new(1 << 20);
    let mut builder = place.builder(SMALL);
    builder.add(TenantId(1), put(b"b", 5, b"").view()).unwrap();
    assert_eq!(place.fs.files().len(), 1);
    drop(builder);
    assert_eq!(place.fs.files().len(), 0);
    assert_eq!(
        place.builder(SMALL).finish().unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(place.fs.files().len(), 0);
}

#[test]
fn a_finished_table_is_durable_and_an_obsolete_one_goes_with_its_last_reader() {
    let place = Place::new(1 << 20);
    let mut random = Random(1);
    let content = content(&mut random, &[1], 50, 20);
    let table = place.table(SMALL, &content);
    let path = table.path().to_path_buf();
    // All but its name: the caller syncs the directory.
    place.io.vfs.sync_dir(Path::new("/tables")).unwrap();
    place.io.vfs.sync_dir(Path::new("/")).unwrap();
    let crashed = place.fs.crashed_image(crate::io::sim::CrashMode::DropAll, 1);
    assert_eq!(crashed.content(&path), place.fs.content(&path));

    let cursor = table.cursor(TenantId(1)).unwrap();
    table.mark_obsolete();
    drop(table);
    assert!(place.fs.content(&path).is_some());
    assert_eq!(collect(cursor).unwrap(), content[&TenantId(1)].entries());
    assert!(place.fs.content(&path).is_none());
}

#[test]
fn nothing_a_tenant_wrote_stands_in_the_file() {
    let place = Place::new(1 << 20);
    let mut oracle = Oracle::default();
    for i in 0..500u32 {
        oracle.add(put(
            format!("\0\0\0\x01canary-key-{i:05}").as_bytes(),
            1,
            b"canary-value",
        ));
    }
    let table = place.table(SMALL, &BTreeMap::from([(TenantId(1), oracle)]));
    let bytes = place.fs.content(table.path()).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"canary"));
}

#[test]
fn a_full_cache_keeps_to_its_size() {
    let place = Place::new(64 << 10);
    let mut random = Random(1);
    let content = content(&mut random, &[1, 2], 5000, 3000);
    let table = place.table(SMALL, &content);
    for tenant in content.keys() {
        collect(table.cursor(*tenant).unwrap()).unwrap();
    }
    let usage = place.cache.usage();
    assert!(usage.bytes <= 64 << 10 && usage.bytes > 32 << 10, "{usage:?}");
    place
        .cache
        .purge_if(|tenant| tenant == TenantId(1) || tenant == TenantId(2));
    assert_eq!(place.cache.usage().pieces, 0);
    assert_eq!(BlockCache::new(0).usage(), CacheUsage::default());
}

#[test]
fn a_cache_that_shrinks_lets_go_of_the_old_and_of_pieces_too_heavy_for_it_and_hides_their_heads() {
    let place = Place::new(256 << 10);
    let mut random = Random(1);
    let content = content(&mut random, &[1, 2], 5000, 3000);
    let table = place.table(SMALL, &content);
    let read = || {
        for (tenant, oracle) in &content {
            assert_eq!(collect(table.cursor(*tenant).unwrap()).unwrap(), oracle.entries());
        }
    };
    read();
    let value = bytes::Bytes::from(vec![7; 20 << 10]);
    place.cache.keep_value(999, 0, TenantId(1), &value);
    assert!(place.cache.value(999, 0, TenantId(1)).is_some());
    place.cache.set_capacity(64 << 10).unwrap();
    let usage = place.cache.usage();
    assert!(
        usage.bytes <= 64 << 10 && usage.bytes_max == 64 << 10,
        "{usage:?}"
    );
    // It would still have room, but takes a quarter of the cache and more.
    assert!(place.cache.value(999, 0, TenantId(1)).is_none());
    place.cache.keep_value(999, 0, TenantId(1), &value);
    assert!(place.cache.value(999, 0, TenantId(1)).is_none());
    read();
    place.cache.set_capacity(0).unwrap();
    read();
    assert_eq!(place.cache.usage(), CacheUsage::default());
    place.cache.set_capacity(1 << 20).unwrap();
    read();
    place.cache.keep_value(999, 0, TenantId(1), &value);
    assert!(place.cache.value(999, 0, TenantId(1)).is_some());
    assert!(place.cache.usage().bytes > 64 << 10);
    let refused = BlockCache::new(0).set_capacity(1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

#[test]
fn readers_beside_a_destruction_see_what_was_there_and_leave_nothing() {
    let place = Place::new(1 << 22);
    let mut random = Random(1);
    let content = content(&mut random, &[1, 2], 1000, 500);
    let table = place.table(SMALL, &content);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (place, table, content) = (&place, &table, &content);
            scope.spawn(move || {
                let mut random = Random(reader);
                let mut after = 0;
                while after < 200 {
                    after += u32::from(!place.keys.is_live(TenantId(1)));
                    for (tenant, oracle) in content {
                        let (key, at) = (random.key(500), SeqNo(random.below(60)));
                        let found = table.get(*tenant, &key, at).unwrap();
                        let gone = *tenant == TenantId(1) && found.is_none();
                        assert!(gone || found == oracle.get(&key, at));
                        let entries = collect(table.cursor(*tenant).unwrap()).unwrap();
                        // A cursor ends where it would have to decrypt: whoever reads by it looks whether the tenant lives.
                        let gone = *tenant == TenantId(1) && oracle.entries().starts_with(&entries);
                        assert!(gone || entries == oracle.entries());
                        let swept = collect(table.sweep(*tenant).unwrap()).unwrap();
                        let gone = *tenant == TenantId(1) && swept.is_empty();
                        assert!(gone || swept == oracle.entries());
                    }
                }
            });
        }
        while place.cache.usage().pieces < 50 {
            std::thread::yield_now();
        }
        place.destroy(TenantId(1));
    });
    place.cache.purge_if(|other| other == TenantId(2));
    assert_eq!(
        place.cache.usage().pieces,
        0,
        "nothing of the destroyed tenant is left"
    );
}

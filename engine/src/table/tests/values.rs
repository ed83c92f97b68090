//! Value files: what was written comes back to who asks for it, and to nobody else; damage is found.

use super::*;
use crate::table::values::{Owner, Reference, ValueFile, ValueMeta, ValueWriter};

/// Tenant, key, version, value.
type Written = (u64, Vec<u8>, u64, Vec<u8>);

fn path(number: u64) -> PathBuf {
    PathBuf::from(format!("/tables/{number:016x}.values"))
}

fn owner((tenant, key, seqno, _): &Written) -> Owner<'_> {
    Owner {
        tenant: TenantId(*tenant),
        key,
        seqno: SeqNo(*seqno),
    }
}

impl Place {
    fn value_writer(&self, compression: Compression) -> ValueWriter {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let header =
            FileHeader::new(&self.io, FileKind::Values, Epoch::FIRST, number, Chain::default()).unwrap();
        ValueWriter::new(&self.io, &path(number), header, &self.keys, compression, SeqNo(3)).unwrap()
    }

    fn write_values(&self, all: &[Written], compression: Compression) -> (ValueMeta, Vec<Reference>) {
        let mut writer = self.value_writer(compression);
        let references = all
            .iter()
            .map(|written| writer.add(owner(written), &written.3).unwrap())
            .collect();
        (writer.finish().unwrap().unwrap(), references)
    }

    fn open_values(&self, meta: ValueMeta) -> Result<Arc<ValueFile>> {
        let (keys, cache) = (self.keys.clone(), self.cache.clone());
        ValueFile::open(&self.io, &path(meta.number), meta, keys, cache)
    }
}

fn sample(random: &mut Random) -> Vec<Written> {
    let mut all = Vec::new();
    for tenant in 1..=3 {
        for at in 0..4u64 {
            let len = [0, 1, 200, 70_000][at as usize];
            let value = match random.below(2) {
                0 => vec![at as u8; len],
                _ => (0..len).map(|_| random.next() as u8).collect(),
            };
            all.push((tenant, vec![0, 0, 0, 1, at as u8], 10 + at, value));
        }
    }
    all
}

#[test]
fn every_value_comes_back_through_the_cache_and_past_it() {
    for (seed, cache) in [(1, 0), (2, 64 << 20), (3, 64 << 20)] {
        for compression in [Compression::None, Compression::Lz4] {
            let place = Place::new(cache);
            let all = sample(&mut Random(seed));
            let (meta, references) = place.write_values(&all, compression);
            let file = place.open_values(meta).unwrap();
            assert_eq!((file.known(), meta.values), (SeqNo(3), all.len() as u64));
            for _ in 0..2 {
                for (written, reference) in all.iter().zip(&references) {
                    assert_eq!(file.get(owner(written), reference).unwrap().unwrap(), written.3);
                    assert_eq!(file.read(owner(written), reference).unwrap().unwrap(), written.3);
                    assert_eq!(reference.length as usize, written.3.len());
                    assert_eq!(Reference::decode(&reference.encode()), Some(*reference));
                }
            }
            let runs: Vec<_> = file.runs().iter().map(|run| (run.tenant.0, run.values)).collect();
            assert_eq!(runs, [(1, 4), (2, 4), (3, 4)]);
            let bytes: u64 = references
                .iter()
                .map(|reference| u64::from(reference.bytes))
                .sum();
            assert_eq!(file.runs().iter().map(|run| run.bytes).sum::<u64>(), bytes);
        }
    }
}

#[test]
fn a_value_in_the_cache_is_not_handed_to_another_tenant() {
    let place = Place::new(1 << 20);
    let written: Written = (1, b"\0\0\0\x01key".to_vec(), 7, vec![3; 100]);
    let (meta, references) = place.write_values(std::slice::from_ref(&written), Compression::None);
    let file = place.open_values(meta).unwrap();
    assert_eq!(
        file.get(owner(&written), &references[0]).unwrap().unwrap(),
        written.3
    );
    let other = Owner {
        tenant: TenantId(2),
        ..owner(&written)
    };
    assert_eq!(
        file.get(other, &references[0]).unwrap_err().kind(),
        ErrorKind::Corruption
    );
}

#[test]
fn a_value_opens_for_its_own_key_version_tenant_and_place_only() {
    let place = Place::new(0);
    let all: Vec<Written> = (0..4)
        .map(|at| {
            (
                1 + at / 2,
                vec![0, 0, 0, 1, at as u8],
                7 + at,
                vec![at as u8; 100],
            )
        })
        .collect();
    let (meta, references) = place.write_values(&all, Compression::None);
    let file = place.open_values(meta).unwrap();
    for (mine, written) in all.iter().enumerate() {
        for (at, reference) in references.iter().enumerate() {
            let found = file.read(owner(written), reference);
            match mine == at {
                true => assert_eq!(found.unwrap().unwrap(), written.3),
                false => assert_eq!(found.unwrap_err().kind(), ErrorKind::Corruption, "{mine} {at}"),
            }
        }
        let right = owner(written);
        let others = [
            Owner {
                key: b"\0\0\0\x01other",
                ..right
            },
            Owner {
                seqno: SeqNo(99),
                ..right
            },
            Owner {
                tenant: TenantId(3),
                ..right
            },
        ];
        for other in others {
            let error = file.read(other, &references[mine]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption);
            assert_eq!(error.path(), Some(&*path(meta.number)));
        }
        let reference = references[mine];
        for bad in [
            Reference {
                length: 99,
                ..reference
            },
            Reference {
                bytes: 0,
                ..reference
            },
            Reference {
                bytes: u32::MAX,
                ..reference
            },
            Reference {
                offset: u64::MAX,
                ..reference
            },
            Reference {
                offset: 0,
                ..reference
            },
        ] {
            assert_eq!(file.read(right, &bad).unwrap_err().kind(), ErrorKind::Corruption);
        }
    }
}

#[test]
fn every_flipped_bit_of_a_value_file_is_found_or_changes_nothing() {
    let place = Place::new(0);
    let all: Vec<Written> = (0..3)
        .map(|at| (1 + at, vec![0, 0, 0, 1, at as u8], 7, vec![at as u8; 30]))
        .collect();
    let (meta, references) = place.write_values(&all, Compression::None);
    for bit in 0..meta.bytes as usize * 8 {
        place
            .fs
            .corrupt(path(meta.number), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let mut refused = 0;
        match place.open_values(meta) {
            Err(e) => {
                assert!(
                    matches!(e.kind(), ErrorKind::Corruption | ErrorKind::Unsupported),
                    "{e:?}"
                );
                assert_eq!(e.path(), Some(&*path(meta.number)));
                refused += 1;
            }
            Ok(file) => {
                for (written, reference) in all.iter().zip(&references) {
                    match file.read(owner(written), reference) {
                        Ok(value) => assert_eq!(value.unwrap(), written.3, "bit {bit}"),
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::Corruption, "bit {bit}");
                            refused += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(
            refused, 1,
            "bit {bit}: every byte is part of one value or of the clear parts"
        );
        place
            .fs
            .corrupt(path(meta.number), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }
}

/// The example of docs/format.md, 4.6.
#[test]
fn directory_footer_and_reference_are_as_documented() {
    let documented = [
        "0100000000000000 01000000 00000000 01010101010101010101010101010101",
        "0300000000000000 8000000000000000 f401000000000000",
        "7402000000000000 0100000000000000 0300000000000000 0800000000000000",
        "0100 0000 219769ad 53524756414c5545",
    ];
    let parser = crate::table::values::parsers::PARSERS
        .iter()
        .find(|parser| parser.name == "value_footer");
    let samples = (parser.unwrap().samples)();
    assert_eq!(hex::encode(&samples[0]), documented.concat().replace(' ', ""));
    let reference = Reference {
        file: 9,
        offset: 128,
        bytes: 1029,
        length: 1000,
    };
    let documented = "0900000000000000 8000000000000000 05040000 e8030000".replace(' ', "");
    assert_eq!(hex::encode(reference.encode()), documented);
}

#[test]
fn a_file_of_another_length_or_of_another_meta_is_refused() {
    let place = Place::new(0);
    let (meta, _) = place.write_values(&sample(&mut Random(1)), Compression::Lz4);
    for other in [
        ValueMeta {
            bytes: meta.bytes - 1,
            ..meta
        },
        ValueMeta {
            values: meta.values + 1,
            ..meta
        },
        ValueMeta {
            file_id: [1; 16],
            ..meta
        },
        ValueMeta {
            digest: [1; 32],
            ..meta
        },
        ValueMeta {
            number: meta.number + 1,
            ..meta
        },
    ] {
        assert_eq!(
            place.open_values(other).err().unwrap().kind(),
            ErrorKind::Corruption
        );
    }
    place.fs.corrupt(path(meta.number), |bytes| bytes.truncate(100));
    assert_eq!(
        place.open_values(meta).err().unwrap().kind(),
        ErrorKind::Corruption
    );
    let short = ValueMeta { bytes: 100, ..meta };
    assert_eq!(
        place.open_values(short).err().unwrap().kind(),
        ErrorKind::Corruption
    );
}

#[test]
fn a_destroyed_tenant_has_no_values_and_others_have() {
    let place = Place::new(64 << 20);
    let all = sample(&mut Random(5));
    let (meta, references) = place.write_values(&all, Compression::Lz4);
    let file = place.open_values(meta).unwrap();
    file.get(owner(&all[6]), &references[6]).unwrap().unwrap();
    place.source.tenants.lock().insert(TenantId(2), (0, 0));
    place.keys.purge_if(|tenant| tenant == TenantId(2));
    place.cache.purge_if(|tenant| tenant == TenantId(2));
    for (written, reference) in all.iter().zip(&references) {
        let found = file.get(owner(written), reference).unwrap();
        assert_eq!(found.is_none(), written.0 == 2);
    }
    let mut writer = place.value_writer(Compression::None);
    writer.add(owner(&all[0]), b"first").unwrap();
    assert_eq!(
        writer.add(owner(&all[4]), b"gone").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let third = writer.add(owner(&all[8]), b"third").unwrap();
    let meta = writer.finish().unwrap().unwrap();
    assert_eq!(meta.values, 2);
    let file = place.open_values(meta).unwrap();
    assert_eq!(file.get(owner(&all[8]), &third).unwrap().unwrap(), "third");
}

#[test]
fn a_writer_that_is_dropped_or_empty_leaves_no_file_and_tenants_ascend() {
    let place = Place::new(0);
    let all = sample(&mut Random(6));
    let mut writer = place.value_writer(Compression::None);
    writer.add(owner(&all[5]), b"x").unwrap();
    assert_eq!(
        writer.add(owner(&all[0]), b"x").unwrap_err().kind(),
        ErrorKind::Corruption
    );
    drop(writer);
    assert!(place.value_writer(Compression::None).finish().unwrap().is_none());
    assert!(place.fs.files().is_empty());
}

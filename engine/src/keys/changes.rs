//! Tenants' keys on their way to a standby or into an escrow.
//!
//! ```text
//! offset size field        (little-endian)
//!      0    4 magic         "SRKC"
//!      4    2 format        1
//!      6    1 full          0 or 1
//!      7    1 zero
//!      8    8 version       keystore version these changes lead to
//!     16    8 next tenant
//!     24    4 upserts
//!     28    4 deleted
//!     32    … upserts       tenant entries, ids ascending
//!      …    8 each, deleted ids, ascending
//!      …    4 crc32         IEEE, over all before
//!
//! tenant entry = id u64 ‖ name length u8 ‖ name ‖ count u8 ‖ count × (version u32 ‖ key 32)
//! ```
//!
//! Valid if and only if lengths add up exactly, the checksum matches, ids ascend and lie below
//! `next tenant`, no id is both upserted and deleted, names are UTF-8 of 1 to 255 bytes (empty for the
//! system tenant alone) and differ, key versions ascend from 1, and a full set has the system tenant and
//! deletes nothing. The bytes are keys: whoever carries them seals them (TLS, HPKE).

use std::collections::HashSet;

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::options::NAME_BYTES_MAX;
use crate::types::{DekVersion, TenantId};

const MAGIC: [u8; 4] = *b"SRKC";
const FORMAT: u16 = 1;
const FIXED_BYTES: usize = 32;
const CRC_BYTES: usize = 4;
const _: () = assert!(NAME_BYTES_MAX == u8::MAX as usize);

/// Keystore changes on their way to a standby or into an escrow. Holds keys: zeroized, no Debug.
#[derive(Clone)]
pub struct KeyChanges {
    /// The keystore version these changes lead to.
    pub version: u64,
    /// Replaces everything (true) or adds to what the receiver has (false).
    pub full: bool,
    /// Ids below this were given out; one that is absent was destroyed.
    pub next_tenant: u64,
    /// Tenants to add, with their keys. Includes TenantId::SYSTEM when full.
    pub upserts: Vec<TenantKeys>,
    /// Tenants to destroy.
    pub deleted: Vec<TenantId>,
}

/// One tenant in the keystore.
#[derive(Clone)]
pub struct TenantKeys {
    /// Id.
    pub id: TenantId,
    /// Name; empty for the system tenant.
    pub name: String,
    /// Its data keys by version, oldest first.
    pub deks: Vec<(DekVersion, Zeroizing<[u8; 32]>)>,
}

impl KeyChanges {
    /// The bytes in the picture at the head of this module: keys in clear, wiped when dropped.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        encode(
            self.version,
            self.full,
            self.next_tenant,
            self.upserts.iter(),
            &self.deleted,
        )
    }

    /// The reverse of [`encode`](KeyChanges::encode). Errors: `Corruption` for anything it did not make;
    /// `Unsupported` when a newer version did.
    pub fn decode(bytes: &[u8]) -> Result<KeyChanges> {
        let (body, crc) = bytes
            .split_last_chunk::<CRC_BYTES>()
            .ok_or_else(|| bad("too short"))?;
        let mut at = body.strip_prefix(&MAGIC).ok_or_else(|| bad("magic"))?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(bad("checksum"));
        }
        let input = &mut at;
        let format = u16::from_le_bytes(take(input)?);
        if format != FORMAT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("key changes of format {format}"),
            ));
        }
        let [full, zero] = take(input)?;
        if full > 1 || zero != 0 {
            return Err(bad("flags"));
        }
        let version = u64::from_le_bytes(take(input)?);
        let next_tenant = u64::from_le_bytes(take(input)?);
        let upsert_count = u32::from_le_bytes(take(input)?);
        let deleted_count = u32::from_le_bytes(take(input)?);
        let mut upserts = Vec::new();
        for _ in 0..upsert_count {
            upserts.push(read_tenant(input)?);
        }
        let mut deleted = Vec::new();
        for _ in 0..deleted_count {
            deleted.push(TenantId(u64::from_le_bytes(take(input)?)));
        }
        if !input.is_empty() {
            return Err(bad("trailing bytes"));
        }
        let changes = KeyChanges {
            version,
            full: full == 1,
            next_tenant,
            upserts,
            deleted,
        };
        changes.validate()?;
        Ok(changes)
    }

    /// Checks the rules at the head of this file; `Corruption` names the one broken.
    pub(crate) fn validate(&self) -> Result<()> {
        let below = |id: Option<TenantId>| id.is_none_or(|id| id.0 < self.next_tenant);
        if !self.upserts.is_sorted_by(|a, b| a.id < b.id)
            || !self.deleted.is_sorted_by(|a, b| a < b)
            || !below(self.upserts.last().map(|t| t.id))
            || !below(self.deleted.last().copied())
        {
            return Err(bad("ids out of order or range"));
        }
        let mut names = HashSet::with_capacity(self.upserts.len());
        for tenant in &self.upserts {
            let system = tenant.id == TenantId::SYSTEM;
            if tenant.name.is_empty() != system || tenant.name.len() > NAME_BYTES_MAX {
                return Err(bad("a name's length"));
            }
            if !names.insert(tenant.name.as_str()) {
                return Err(bad("a name twice"));
            }
            let mut last = DekVersion(0);
            let in_order = tenant
                .deks
                .iter()
                .all(|(v, _)| std::mem::replace(&mut last, *v) < *v);
            if !in_order || tenant.deks.is_empty() || tenant.deks.len() > usize::from(u8::MAX) {
                return Err(bad("key versions"));
            }
            if self.deleted.binary_search(&tenant.id).is_ok() {
                return Err(bad("an id both kept and deleted"));
            }
        }
        if self.deleted.first() == Some(&TenantId::SYSTEM) {
            return Err(bad("the system tenant deleted"));
        }
        let has_system = self.upserts.first().is_some_and(|t| t.id == TenantId::SYSTEM);
        if self.full && (!has_system || !self.deleted.is_empty()) {
            return Err(bad("a full set without the system tenant, or with deletions"));
        }
        Ok(())
    }
}

/// Whatever can be written as a tenant entry: the keystore writes from its own structures.
pub(crate) trait TenantEntry {
    /// Id.
    fn id(&self) -> TenantId;
    /// Name, at most 255 bytes.
    fn name(&self) -> &str;
    /// Its data keys, oldest first, at most 255.
    fn for_each_dek(&self, visit: &mut dyn FnMut(DekVersion, &[u8; 32]));
}

impl<T: TenantEntry> TenantEntry for &T {
    fn id(&self) -> TenantId {
        T::id(self)
    }

    fn name(&self) -> &str {
        T::name(self)
    }

    fn for_each_dek(&self, visit: &mut dyn FnMut(DekVersion, &[u8; 32])) {
        T::for_each_dek(self, visit);
    }
}

impl TenantEntry for TenantKeys {
    fn id(&self) -> TenantId {
        self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn for_each_dek(&self, visit: &mut dyn FnMut(DekVersion, &[u8; 32])) {
        self.deks.iter().for_each(|(version, key)| visit(*version, key));
    }
}

/// Encodes changes from parts. Requires what [`KeyChanges::validate`] checks.
pub(crate) fn encode(
    version: u64,
    full: bool,
    next_tenant: u64,
    upserts: impl Iterator<Item: TenantEntry> + Clone,
    deleted: &[TenantId],
) -> Zeroizing<Vec<u8>> {
    let (mut count, mut len) = (0u32, FIXED_BYTES + 8 * deleted.len() + CRC_BYTES);
    for tenant in upserts.clone() {
        count += 1;
        len += 8 + 1 + tenant.name().len() + 1;
        tenant.for_each_dek(&mut |_, _| len += 36);
    }
    // Exact, so that the buffer never moves and leaves keys behind.
    let mut out = Zeroizing::new(Vec::with_capacity(len));
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[u8::from(full), 0]);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&next_tenant.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&(deleted.len() as u32).to_le_bytes());
    for tenant in upserts {
        out.extend_from_slice(&tenant.id().0.to_le_bytes());
        out.push(tenant.name().len() as u8);
        out.extend_from_slice(tenant.name().as_bytes());
        let at = out.len();
        out.push(0);
        let mut deks = 0u8;
        tenant.for_each_dek(&mut |version, key| {
            deks += 1;
            out.extend_from_slice(&version.0.to_le_bytes());
            out.extend_from_slice(key);
        });
        if let Some(byte) = out.get_mut(at) {
            *byte = deks;
        }
    }
    for id in deleted {
        out.extend_from_slice(&id.0.to_le_bytes());
    }
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(out.len(), len, "the length of encoded key changes");
    out
}

/// Reads a tenant entry off the front of `input`. Checks lengths and UTF-8 only.
fn read_tenant(input: &mut &[u8]) -> Result<TenantKeys> {
    let id = TenantId(u64::from_le_bytes(take(input)?));
    let [name_len] = take(input)?;
    let (name, rest) = input
        .split_at_checked(usize::from(name_len))
        .ok_or_else(|| bad("cut short"))?;
    *input = rest;
    let name = std::str::from_utf8(name)
        .map_err(|_| bad("a name that is not UTF-8"))?
        .to_owned();
    let [count] = take(input)?;
    let mut deks = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let version = DekVersion(u32::from_le_bytes(take(input)?));
        deks.push((version, Zeroizing::new(take(input)?)));
    }
    Ok(TenantKeys { id, name, deks })
}

/// The next `N` bytes of `input`.
pub(super) fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or_else(|| bad("cut short"))?;
    *input = rest;
    Ok(*head)
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::Corruption, format!("key changes: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: u64, name: &str, versions: &[u32]) -> TenantKeys {
        let deks = versions
            .iter()
            .map(|v| (DekVersion(*v), Zeroizing::new([id as u8 ^ *v as u8; 32])));
        TenantKeys {
            id: TenantId(id),
            name: name.into(),
            deks: deks.collect(),
        }
    }

    fn sample() -> KeyChanges {
        KeyChanges {
            version: 77,
            full: false,
            next_tenant: 10,
            upserts: vec![tenant(3, "acme", &[1]), tenant(9, &"é".repeat(127), &[1, 2, 7])],
            deleted: vec![TenantId(4), TenantId(5)],
        }
    }

    fn same(a: &KeyChanges, b: &KeyChanges) -> bool {
        a.encode().as_slice() == b.encode().as_slice()
    }

    #[test]
    fn changes_survive_encoding() {
        let back = KeyChanges::decode(&sample().encode()).unwrap();
        assert!(same(&back, &sample()));
        assert_eq!(back.upserts[1].deks[2].0, DekVersion(7));
        let full = KeyChanges {
            full: true,
            upserts: vec![tenant(0, "", &[1])],
            deleted: vec![],
            ..sample()
        };
        assert!(KeyChanges::decode(&full.encode()).unwrap().full);
    }

    #[test]
    fn flipped_bits_and_cuts_are_refused() {
        let good = sample().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(KeyChanges::decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(KeyChanges::decode(&good[..len]).is_err(), "{len} bytes");
        }
        let mut long = good.to_vec();
        long.push(0);
        assert!(KeyChanges::decode(&long).is_err());
    }

    #[test]
    fn broken_rules_are_refused_although_the_checksum_fits() {
        let cases = [
            KeyChanges {
                next_tenant: 9,
                ..sample()
            },
            KeyChanges {
                deleted: vec![TenantId(3)],
                ..sample()
            },
            KeyChanges {
                deleted: vec![TenantId(5), TenantId(4)],
                ..sample()
            },
            KeyChanges {
                deleted: vec![TenantId(0)],
                ..sample()
            },
            KeyChanges {
                full: true,
                ..sample()
            },
            KeyChanges {
                upserts: vec![tenant(3, "", &[1])],
                ..sample()
            },
            KeyChanges {
                upserts: vec![tenant(3, "a", &[])],
                ..sample()
            },
            KeyChanges {
                upserts: vec![tenant(3, "a", &[0])],
                ..sample()
            },
            KeyChanges {
                upserts: vec![tenant(3, "a", &[2, 1])],
                ..sample()
            },
            KeyChanges {
                upserts: vec![tenant(3, "a", &[1]), tenant(6, "a", &[1])],
                ..sample()
            },
            KeyChanges {
                upserts: vec![tenant(6, "a", &[1]), tenant(3, "b", &[1])],
                ..sample()
            },
        ];
        for (index, case) in cases.iter().enumerate() {
            let error = KeyChanges::decode(&case.encode())
                .err()
                .unwrap_or_else(|| panic!("case {index}"));
            assert_eq!(error.kind(), ErrorKind::Corruption, "case {index}");
        }
    }
}

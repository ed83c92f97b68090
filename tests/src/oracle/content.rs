//! What users can read: its shape, how it is read whole, and how two differ.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use strongroom::{Engine, Error, Retention};

/// Sorted entries of one keyspace.
pub type Entries = BTreeMap<Bytes, Bytes>;
/// Keyspaces of one tenant by name.
pub type Spaces = BTreeMap<String, Entries>;
/// Everything users can read: by tenant's name.
pub type Content = BTreeMap<String, Spaces>;

/// When entries end, by tenant, keyspace and key.
pub type Moments = BTreeMap<(String, String, Bytes), u64>;

/// When entries expire by themselves, when they were written, and when they end.
pub type Dates = BTreeMap<(String, String, Bytes), (Option<u64>, u64, Option<u64>)>;

/// When what has dates ends.
pub fn moments(dates: &Dates) -> Moments {
    let ends = dates
        .iter()
        .filter_map(|(place, (.., end))| Some((place.clone(), (*end)?)));
    ends.collect()
}

/// Stands among the names of keyspaces for what is set of a tenant; only if something is.
pub const SETTINGS: &str = "settings";

/// As it stands there: a retention.
pub(super) fn setting(space: &str, keep: Retention) -> Option<(Bytes, Bytes)> {
    Some((Bytes::from(space.to_string()), Bytes::from(format!("{keep:?}"))))
}

/// As it stands there: from which length on values go apart.
pub(super) fn separate(space: &str, bytes: usize) -> (Bytes, Bytes) {
    (
        Bytes::from(format!("apart {space}")),
        Bytes::from(bytes.to_string()),
    )
}

/// As it stands there: a quota.
pub(super) fn quota(bytes: u64) -> (Bytes, Bytes) {
    (Bytes::from_static(b"quota"), Bytes::from(bytes.to_string()))
}

/// Takes out what has ended.
pub fn let_expire(content: &mut Content, moments: &Moments, now: u64) {
    for ((tenant, space, key), _) in moments.iter().filter(|(_, at)| **at <= now) {
        if let Some(entries) = content.get_mut(tenant).and_then(|spaces| spaces.get_mut(space)) {
            entries.remove(key);
        }
    }
}

/// Adds the first few differences to `text`.
pub fn difference(expected: &Content, found: &Content, text: &mut String) {
    let mut lines = Vec::new();
    let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    for name in names {
        let (Some(e), Some(f)) = (expected.get(name), found.get(name)) else {
            let verb = if found.contains_key(name) {
                "resurrected"
            } else {
                "lost"
            };
            lines.push(format!("{verb} tenant {name}"));
            continue;
        };
        let spaces: BTreeSet<_> = e.keys().chain(f.keys()).collect();
        for space in spaces {
            let (Some(e), Some(f)) = (e.get(space), f.get(space)) else {
                let verb = if f.contains_key(space) {
                    "resurrected"
                } else {
                    "lost"
                };
                lines.push(format!("{verb} keyspace {name}/{space}"));
                continue;
            };
            let keys: BTreeSet<_> = e.keys().chain(f.keys()).collect();
            for key in keys.into_iter().filter(|k| e.get(*k) != f.get(*k)) {
                let len = |v: Option<&Bytes>| v.map(|v| (v.len(), v.slice(..v.len().min(24))));
                lines.push(format!(
                    "{name}/{space}/{}: expected {:?}, found {:?}",
                    key.escape_ascii(),
                    len(e.get(key)),
                    len(f.get(key))
                ));
            }
        }
    }
    let more = lines.len().saturating_sub(8);
    lines.truncate(8);
    lines.iter().for_each(|line| *text += &format!("\n  {line}"));
    if more > 0 {
        *text += &format!("\n  and {more} more");
    }
}

/// All that users can read, by iterating every keyspace of every tenant.
pub fn read_all(engine: &Engine) -> Result<Content, Error> {
    let mut content = Content::new();
    for info in engine.tenants() {
        let tenant = engine.tenant_by_id(info.id)?;
        let mut spaces = Spaces::new();
        let mut settings: Entries = tenant.quota()?.map(quota).into_iter().collect();
        for name in tenant.keyspaces()? {
            let space = tenant.open_keyspace(&name)?;
            let retention = tenant.retention(&space)?;
            settings.extend(retention.and_then(|keep| setting(&name, keep)));
            settings.extend(tenant.separate_bytes(&space)?.map(|bytes| separate(&name, bytes)));
            spaces.insert(name, space.iter().collect::<Result<Entries, Error>>()?);
        }
        if !settings.is_empty() {
            spaces.insert(SETTINGS.to_string(), settings);
        }
        content.insert(info.name, spaces);
    }
    Ok(content)
}

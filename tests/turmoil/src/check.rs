//! What must be true once the faults are over and the pair has settled.
//!
//! 1. Both logs end at the same position with the same chain: no gap, no duplicate, nothing else.
//! 2. Both nodes have the same tenants and keyspaces, and a full scan of both finds the same entries.
//! 3. For every key: what is there was written, and not before the newest write that had to survive. That is
//!    every `Replicated` one, and a `Local` one of the reign that lasted, at the node that kept it.

use strongroom::{Engine, ErrorKind};
use strongroom_replication::NodeRole;

use crate::site::Site;
use crate::writer::{History, KEYSPACE, Told, Write, tenant};

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    /// Entries found equal on both nodes.
    pub entries: u64,
    /// Keys judged against their histories.
    pub keys: u64,
    /// Acknowledged writes that had to survive.
    pub promised: u64,
}

/// Checks everything; what is wrong if something is.
pub fn all(sites: &[Site; 2], histories: &[History], reigns: u64) -> Result<Checked, String> {
    let mut nodes = Vec::new();
    for site in sites {
        let state = site.node().ok_or("a node is down")?.state();
        nodes.push((state.role, state.engine.ok_or("a node without data")?));
    }
    let primary = nodes
        .iter()
        .position(|(role, _)| *role == NodeRole::Primary)
        .ok_or("no primary")?;
    let (engine, other) = (&nodes[primary].1, &nodes[1 - primary].1);
    same_log(engine, other)?;
    let mut checked = Checked {
        entries: same_data(engine, other)?,
        ..Checked::default()
    };
    for (index, history) in histories.iter().enumerate() {
        for (key, writes) in history {
            checked.keys += 1;
            checked.promised += judge(engine, primary, reigns, &tenant(index as u64), key, writes)?;
        }
    }
    Ok(checked)
}

fn same_log(primary: &Engine, standby: &Engine) -> Result<(), String> {
    let (p, s) = (primary.status(), standby.status());
    if (p.durable, p.epoch, p.database_id) != (s.durable, s.epoch, s.database_id) {
        return Err(format!("the logs end elsewhere:\n{p:?}\n{s:?}"));
    }
    let chain = |engine: &Engine| engine.chain_at(p.durable).map_err(|e| e.to_string());
    if chain(primary)? != chain(standby)? {
        return Err("the logs are equally long and not the same".to_owned());
    }
    Ok(())
}

/// Compares all entries, and counts them.
fn same_data(primary: &Engine, standby: &Engine) -> Result<u64, String> {
    let (tenants, others) = (primary.tenants(), standby.tenants());
    let ids = |tenants: &[strongroom::TenantInfo]| -> Vec<_> {
        tenants
            .iter()
            .map(|tenant| (tenant.id, tenant.name.clone()))
            .collect()
    };
    if ids(&tenants) != ids(&others) {
        return Err(format!("tenants differ: {:?} {:?}", ids(&tenants), ids(&others)));
    }
    let mut entries = 0;
    for info in tenants.iter().filter(|info| !info.name.is_empty()) {
        let of = |engine: &Engine| engine.tenant(&info.name).map_err(|e| e.to_string());
        let (here, there) = (of(primary)?, of(standby)?);
        let names = here.keyspaces().map_err(|e| e.to_string())?;
        if there.keyspaces().map_err(|e| e.to_string())? != names {
            return Err(format!("keyspaces of {} differ", info.name));
        }
        for name in &names {
            let scan = |tenant: &strongroom::Tenant| {
                let keyspace = tenant.open_keyspace(name)?;
                keyspace.range::<&str>(..).collect::<strongroom::Result<Vec<_>>>()
            };
            let found = scan(&here).map_err(|e| e.to_string())?;
            let other = scan(&there).map_err(|e| e.to_string())?;
            if other != found {
                let difference = difference(&found, &other);
                let (p, s) = (primary.status(), standby.status());
                return Err(format!(
                    "entries of {} in {name} differ: {difference}\n{p:?}\n{s:?}",
                    info.name
                ));
            }
            entries += found.len() as u64;
        }
    }
    Ok(entries)
}

type Entries = [(bytes::Bytes, bytes::Bytes)];

/// Which entries are not in both, by the beginnings of their values.
fn difference(primary: &Entries, standby: &Entries) -> String {
    let only = |these: &Entries, those: &Entries| -> Vec<String> {
        let missing = these.iter().filter(|entry| !those.contains(entry));
        missing
            .map(|(key, value)| {
                let begin = &value[..value.len().min(12)];
                format!("{} = {}", key.escape_ascii(), begin.escape_ascii())
            })
            .collect()
    };
    format!(
        "only on the primary {:?}, only on the standby {:?}",
        only(primary, standby),
        only(standby, primary)
    )
}

/// Judges one key; how many of its writes had to survive.
fn judge(
    engine: &Engine,
    primary: usize,
    reigns: u64,
    tenant: &str,
    key: &str,
    writes: &[Write],
) -> Result<u64, String> {
    let found = engine
        .tenant(tenant)
        .and_then(|tenant| tenant.open_keyspace(KEYSPACE)?.get(key));
    let found = match found {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(format!("reading {tenant} {key}: {e}")),
    };
    let promised = |write: &Write| match write.told {
        Told::Replicated => true,
        Told::Local => write.node == primary && write.reign == reigns,
        Told::Unknown => false,
    };
    let oldest = writes.iter().rposition(promised);
    let fits = |write: &Write| write.value.as_deref() == found.as_deref();
    let since = oldest.unwrap_or(0);
    let untouched = oldest.is_none() && found.is_none();
    if !untouched && !writes[since..].iter().any(fits) {
        let told: Vec<_> = writes[since..]
            .iter()
            .map(|w| (w.told, w.node, w.reign, w.value.as_ref().map(Vec::len)))
            .collect();
        let earlier = writes.iter().rposition(fits);
        return Err(format!(
            "{tenant} key {key}: write {since} of {} was promised, found is {} (write {earlier:?}); since then: {told:?}, \
             primary {primary}, reigns {reigns}",
            writes.len(),
            if found.is_some() { "another" } else { "nothing" },
        ));
    }
    Ok(writes.iter().filter(|write| promised(write)).count() as u64)
}

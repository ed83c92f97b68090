//! Whole contents, read back and walked against the model: over the network, and from an engine.
//!
//! Besides the walk, everything read goes into one digest, so that two databases are compared with
//! each other and not only each with the model.

use sha2::{Digest, Sha256};
use strongroom::Engine;
use strongroom_client::{Client, RangeOptions};

use super::data::Data;
use super::model::{Fate, Found, Model, Walk};
use super::random::Random;
use crate::cli::exit::{Exit, Failure, Outcome};

/// Acknowledged writes that are also asked for one by one.
const GETS: usize = 2000;

/// What was read, and how it compares.
pub struct Read {
    /// Against the model.
    pub found: Found,
    /// Of all tenants' names, keys and values, in order.
    pub digest: [u8; 32],
}

/// Collects what is read from one database.
struct Reader<'a> {
    data: &'a Data,
    model: &'a Model,
    found: Found,
    hasher: Sha256,
}

impl<'a> Reader<'a> {
    fn new(data: &'a Data, model: &'a Model) -> Reader<'a> {
        Reader {
            data,
            model,
            found: Found::default(),
            hasher: Sha256::new(),
        }
    }

    /// Begins a tenant.
    fn tenant(&mut self, tenant: usize) -> Walk<'a> {
        let name = self.data.tenants.get(tenant).map_or("", |tenant| &tenant.name);
        self.hash(name.as_bytes());
        Walk::new(self.data, self.model, tenant)
    }

    fn hash(&mut self, bytes: &[u8]) {
        self.hasher.update((bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    fn entry(&mut self, walk: &mut Walk<'a>, key: &[u8], value: &[u8]) {
        self.hash(key);
        self.hash(value);
        walk.entry(key, value);
    }

    fn finish(self) -> Read {
        Read {
            found: self.found,
            digest: self.hasher.finalize().into(),
        }
    }
}

/// Reads all tenants but `skip` through their clients.
pub async fn server(data: &Data, model: &Model, clients: &[Client], skip: Option<usize>) -> Outcome<Read> {
    let mut reader = Reader::new(data, model);
    for (tenant, client) in clients
        .iter()
        .enumerate()
        .filter(|(tenant, _)| Some(*tenant) != skip)
    {
        let mut walk = reader.tenant(tenant);
        let mut entries = client.range(&data.keyspace, RangeOptions::all()).await?;
        while let Some((key, value)) = entries.next().await? {
            reader.entry(&mut walk, &key, &value);
        }
        reader.found.add(walk.end());
    }
    Ok(reader.finish())
}

/// Asks for some acknowledged writes one by one. Returns how many were asked for and how many were wrong.
pub async fn gets(
    data: &Data,
    model: &Model,
    clients: &[Client],
    random: &mut Random,
) -> Outcome<(u64, u64)> {
    let (mut asked, mut wrong) = (0, 0);
    for _ in 0..GETS.min(data.events.len()) {
        let index = random.between(0, data.events.len() as u64 - 1) as u32;
        let Some(event) = data
            .event(index)
            .filter(|_| model.fate(index) == Fate::Acknowledged)
        else {
            continue;
        };
        let Some(client) = clients.get(event.tenant) else {
            continue;
        };
        let value = client.get(&data.keyspace, &event.key).await?;
        asked += 1;
        wrong += u64::from(value.as_deref() != Some(&*event.value));
    }
    Ok((asked, wrong))
}

/// Reads all tenants but `skip` from an open engine. Tenants and keyspaces must be exactly those.
pub fn engine(data: &Data, model: &Model, engine: &Engine, skip: Option<usize>) -> Outcome<Read> {
    let mut reader = Reader::new(data, model);
    let wanted = || {
        data.tenants
            .iter()
            .enumerate()
            .filter(|(tenant, _)| Some(*tenant) != skip)
    };
    let mut names: Vec<String> = engine.tenants().into_iter().map(|tenant| tenant.name).collect();
    let mut want: Vec<String> = wanted().map(|(_, tenant)| tenant.name.clone()).collect();
    names.sort_unstable();
    want.sort_unstable();
    if names != want {
        let text = format!(
            "{} tenants where {} should be, or other ones",
            names.len(),
            want.len()
        );
        return Err(Failure::new(Exit::Failed, text));
    }
    for (index, tenant) in wanted() {
        let mut walk = reader.tenant(index);
        let tenant = engine.tenant(&tenant.name)?;
        let keyspaces = tenant.keyspaces()?;
        if keyspaces != [data.keyspace.clone()] {
            return Err(Failure::failed(format!(
                "{} keyspaces where one should be",
                keyspaces.len()
            )));
        }
        for entry in tenant.open_keyspace(&data.keyspace)?.iter() {
            let (key, value) = entry?;
            reader.entry(&mut walk, &key, &value);
        }
        reader.found.add(walk.end());
    }
    Ok(reader.finish())
}

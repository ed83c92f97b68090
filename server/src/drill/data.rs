//! What the drill writes: real events, or the reader's own.
//!
//! An event is one NDJSON line with `tenant` and `user` (text) and `ts` (an integer); anything else goes
//! into the value. Layout: keyspace `activity` of the tenant, key = user ‖ 0x00 ‖ ts (8 bytes,
//! big-endian) ‖ line number (4 bytes, big-endian), value = the other fields as JSON. No two events
//! share a key, so the order of writing does not matter.
//!
//! Tenants and the keyspace carry the run's mark in their names. A short real name such as `raft` occurs
//! in any log by chance; `raft 8c1f22e09ab34d10` in a file means that Strongroom leaked it.

use std::collections::HashMap;
use std::path::Path;

use strongroom_server::ndjson::{Lines, Object};
use strongroom_server::template::Template;

use crate::cli::exit::{self, Failure, Outcome};

/// Carried in the binary: see server/data/README.md.
const SAMPLE: &[u8] = include_bytes!("../../data/sample.ndjson.zst");

/// How a key is made; documented above.
const KEY: &str = r"{user}\x00{ts:be8}{#:be4}";

/// Longest tenant name accepted: the mark is added to it.
const TENANT_BYTES_MAX: usize = 200;

/// One write.
pub struct Event {
    /// Index into [`Data::tenants`].
    pub tenant: usize,
    /// Its key, unique in the whole input.
    pub key: Box<[u8]>,
    /// Its value.
    pub value: Box<[u8]>,
}

/// A tenant of the input.
pub struct Tenant {
    /// Its name in the database: with the mark.
    pub name: String,
    /// Its events, by index, in order of key.
    pub by_key: Vec<u32>,
}

/// The whole input.
pub struct Data {
    /// In the order of the input.
    pub events: Vec<Event>,
    /// In the order of appearance.
    pub tenants: Vec<Tenant>,
    /// Name of the keyspace: with the mark.
    pub keyspace: String,
    /// Where it came from, for the report.
    pub origin: String,
}

impl Data {
    /// Reads `path`, or the sample. Names the first broken line.
    pub fn read(path: Option<&Path>, mark: &str) -> Outcome<Data> {
        let (lines, origin) = match path {
            Some(path) => (
                Lines::file(path).map_err(exit::at(path))?,
                path.display().to_string(),
            ),
            None => (Lines::bytes(SAMPLE)?, "the built-in sample".to_owned()),
        };
        Data::collect(lines, mark, origin)
    }

    fn collect(lines: Lines, mark: &str, origin: String) -> Outcome<Data> {
        let template = Template::parse(KEY)?;
        let mut data = Data {
            events: Vec::new(),
            tenants: Vec::new(),
            keyspace: format!("activity {mark}"),
            origin,
        };
        let mut known: HashMap<String, usize> = HashMap::new();
        for line in lines {
            let line = line.map_err(|broken| Failure::usage(broken.to_string()).during(&data.origin))?;
            let broken =
                |why: String| Failure::usage(format!("{}: line {}: {why}", data.origin, line.number));
            let object = Object::parse(&line.bytes).map_err(broken)?;
            let name = object
                .text("tenant")
                .filter(|name| (1..=TENANT_BYTES_MAX).contains(&name.len()))
                .ok_or_else(|| broken(format!("needs a tenant: text of 1 to {TENANT_BYTES_MAX} bytes")))?;
            let key = template
                .key(&object.0, line.number)
                .map_err(|error| broken(error.to_string()))?;
            let value = object.without(|field| field == "tenant" || template.uses(field));
            let tenant = *known.entry(name).or_insert_with_key(|name| {
                data.tenants.push(Tenant {
                    name: format!("{name} {mark}"),
                    by_key: Vec::new(),
                });
                data.tenants.len() - 1
            });
            let index = u32::try_from(data.events.len())
                .map_err(|_| Failure::usage("more events than the drill can hold"))?;
            if let Some(tenant) = data.tenants.get_mut(tenant) {
                tenant.by_key.push(index);
            }
            data.events.push(Event {
                tenant,
                key: key.into(),
                value: value.into(),
            });
        }
        if data.tenants.len() < 2 {
            return Err(Failure::usage(format!(
                "{}: the drill needs events of at least two tenants, since it deletes one",
                data.origin
            )));
        }
        let events = &data.events;
        for tenant in &mut data.tenants {
            tenant
                .by_key
                .sort_unstable_by_key(|index| events.get(*index as usize).map(|event| &event.key));
        }
        Ok(data)
    }

    /// The event with this index.
    pub fn event(&self, index: u32) -> Option<&Event> {
        self.events.get(index as usize)
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.events
            .iter()
            .map(|event| (event.key.len() + event.value.len()) as u64)
            .sum()
    }

    /// The tenant with the fewest events: the one that is deleted.
    pub fn smallest(&self) -> usize {
        let smallest = self
            .tenants
            .iter()
            .enumerate()
            .min_by_key(|(_, tenant)| tenant.by_key.len());
        smallest.map_or(0, |(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_what_its_readme_says() {
        let data = Data::read(None, "mark").unwrap();
        assert_eq!((data.events.len(), data.tenants.len()), (5000, 8));
        let sizes: Vec<usize> = data.tenants.iter().map(|tenant| tenant.by_key.len()).collect();
        assert_eq!((sizes.iter().max(), sizes.iter().min()), (Some(&850), Some(&107)));
        assert_eq!(sizes.get(data.smallest()), Some(&107));
        let first = &data.events[0];
        assert_eq!(first.key.len(), 9 + 1 + 8 + 4);
        assert!(first.value.starts_with(br#"{"action":""#));
        for tenant in &data.tenants {
            assert!(tenant.name.ends_with(" mark"));
            let keys: Vec<_> = tenant
                .by_key
                .iter()
                .map(|i| &data.event(*i).unwrap().key)
                .collect();
            assert!(keys.is_sorted() && keys.windows(2).all(|two| two[0] != two[1]));
        }
    }

    #[test]
    fn a_broken_line_is_named_by_number_and_not_quoted() {
        for (bytes, number) in [
            (&b"{\"tenant\":\"a\",\"user\":\"u\",\"ts\":1}\n\nxyzzy\n"[..], 3),
            (b"{\"tenant\":\"\",\"user\":\"u\",\"ts\":1}", 1),
            (b"{\"tenant\":\"a\",\"user\":\"u\",\"ts\":-1}", 1),
            (b"{\"tenant\":\"a\",\"ts\":1}", 1),
        ] {
            let lines = Lines::bytes(bytes).unwrap();
            let failure = Data::collect(lines, "m", "input".into()).err().unwrap();
            assert_eq!(failure.exit, crate::cli::exit::Exit::Usage);
            assert!(failure.message.contains(&format!("line {number}:")), "{failure}");
            assert!(!failure.message.contains("xyzzy"), "{failure}");
        }
    }
}

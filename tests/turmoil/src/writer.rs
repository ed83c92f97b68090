//! A client: a thread of its own that writes to whichever node takes writes, and remembers what it was told.
//!
//! It asks the engine itself: the way from client to server is the server tests' part, the way from primary to
//! standby is this layer's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use strongroom::{Durability, Engine, TenantOptions};
use strongroom_tests::dice::Dice;

use crate::site::Site;

/// The keyspace that is written to.
pub const KEYSPACE: &str = "k";
/// Keys of each writer.
const KEYS: u64 = 12;

/// What a writer was told of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// Nothing certain.
    Unknown,
    /// Durable where it was written.
    Local,
    /// Durable on both.
    Replicated,
}

/// One write of one key.
#[derive(Clone, Debug)]
pub struct Write {
    /// `None`: a delete.
    pub value: Option<Vec<u8>>,
    /// What came back.
    pub told: Told,
    /// Where it went.
    pub node: usize,
    /// Promotions that had been ordered when it was submitted.
    pub reign: u64,
}

/// What the driver and the writers share.
#[derive(Default)]
pub struct Traffic {
    /// The node writers turn to first.
    pub target: AtomicUsize,
    /// Promotions ordered so far.
    pub reigns: AtomicU64,
    /// Writers end.
    pub stop: AtomicBool,
}

/// Writes of one writer by key, oldest first.
pub type History = BTreeMap<String, Vec<Write>>;

/// Starts writer `index`, which writes into its own tenant.
pub fn start(
    sites: [Site; 2],
    traffic: Arc<Traffic>,
    seed: u64,
    index: u64,
    value_bytes: u64,
) -> JoinHandle<History> {
    std::thread::Builder::new()
        .name(format!("writer-{index}"))
        .spawn(move || {
            let mut dice = Dice::new(seed ^ (index + 1).wrapping_mul(0x9e37_79b9));
            let mut history = History::new();
            let mut number = 0u64;
            while !traffic.stop.load(Ordering::Relaxed) {
                let first = traffic.target.load(Ordering::Relaxed);
                // Some clients have not heard of a failover yet.
                let node = if dice.percent(10) { 1 - first } else { first };
                if let Some(engine) = sites[node].primary() {
                    number += 1;
                    write(
                        &engine,
                        &mut dice,
                        &mut history,
                        index,
                        number,
                        node,
                        &traffic,
                        value_bytes,
                    );
                }
                std::thread::sleep(Duration::from_micros(500 + dice.below(2_000)));
            }
            history
        })
        .expect("a thread")
}

#[expect(clippy::too_many_arguments, reason = "all of one writer's state")]
fn write(
    engine: &Engine,
    dice: &mut Dice,
    history: &mut History,
    index: u64,
    number: u64,
    node: usize,
    traffic: &Traffic,
    value_bytes: u64,
) {
    let name = tenant(index);
    let key = format!("{}", dice.below(KEYS));
    let value = (!dice.percent(10)).then(|| {
        let mut value = format!("{index}-{number}-").into_bytes();
        value.resize(value.len() + dice.below(value_bytes) as usize, number as u8);
        value
    });
    let durability = if dice.percent(70) {
        Durability::Replicated
    } else {
        Durability::Local
    };
    let reign = traffic.reigns.load(Ordering::SeqCst);
    // The keys of a tenant travel apart from the log: some come and go while the links are bad.
    if dice.percent(3) {
        let passing = format!("passing-{index}");
        let _ = match engine.tenant(&passing) {
            Ok(_) => engine.delete_tenant(&passing).map(drop),
            Err(_) => engine.create_tenant(&passing, TenantOptions::default()).map(drop),
        };
    }
    let committed = engine
        .tenant(&name)
        .or_else(|_| engine.create_tenant(&name, TenantOptions::default()))
        .and_then(|tenant| {
            let keyspace = tenant.keyspace(KEYSPACE)?;
            let batch = tenant.batch().durability(durability);
            match &value {
                Some(value) => batch.put(&keyspace, key.as_str(), value),
                None => batch.delete(&keyspace, key.as_str()),
            }
            .commit()
        });
    let told = match (committed, durability) {
        (Ok(_), Durability::Replicated) => Told::Replicated,
        (Ok(_), _) => Told::Local,
        (Err(_), _) => Told::Unknown,
    };
    history.entry(key).or_default().push(Write {
        value,
        told,
        node,
        reign,
    });
}

/// The tenant of writer `index`.
pub fn tenant(index: u64) -> String {
    format!("writer-{index}")
}

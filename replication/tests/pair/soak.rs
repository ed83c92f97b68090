//! Failover after failover while writers write: nothing acknowledged as `Replicated` is ever lost, and the
//! two nodes end up with the same content. Where the cut falls is seeded and printed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::{Durability, Engine};
use strongroom_replication::NodeRole;

use crate::harness::*;

const ROUNDS: usize = 4;
const WRITERS: usize = 4;

/// Writes until told to stop or refused; what was acknowledged, by key.
struct Writers {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    acknowledged: Arc<Mutex<Vec<String>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Writers {
    fn start(engine: &Engine, round: usize) -> Writers {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let threads = (0..WRITERS).map(|writer| {
            let (stop, count, acknowledged) = (stop.clone(), count.clone(), acknowledged.clone());
            let engine = engine.clone();
            std::thread::spawn(move || {
                for i in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("{round:02}/{writer}/{i:06}");
                    let commit = || {
                        let tenant = engine.tenant("acme")?;
                        let keyspace = tenant.open_keyspace("data")?;
                        let batch = tenant.batch().put(&keyspace, &key, vec![b'v'; 100 + i % 900]);
                        batch.durability(Durability::Replicated).commit()
                    };
                    if commit().is_err() {
                        return;
                    }
                    acknowledged.lock().unwrap().push(key);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Writers {
            stop,
            count,
            acknowledged,
            threads,
        }
    }

    async fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = self.threads;
        blocking(move || threads.into_iter().for_each(|t| t.join().unwrap())).await;
        self.acknowledged.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn failovers_under_load_then_nothing_acknowledged_is_lost() {
    let seed: u64 = match std::env::var("STRONGROOM_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => u64::from(std::process::id()),
    };
    println!("STRONGROOM_SEED={seed}");
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut pair = Pair::new().await;
    pair.engine.replicated_timeout = Duration::from_secs(2);
    let (mut primary, mut standby) = pair.start().await;
    keyspace(&engine(&primary), "acme");
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let writers = Writers::start(&engine(&primary), round);
        let wanted = usize::try_from(20 + draw(200)).unwrap();
        until("some writes", || writers.count.load(Ordering::Relaxed) >= wanted).await;
        let clean = draw(3) == 0;
        if !clean {
            pair.cut();
        }
        let promotion = within("promotion", standby.promote()).await.unwrap();
        acknowledged.extend(writers.finish().await);
        let (fenced, served) = (primary.clone(), standby.clone());
        (primary, standby) = (served, fenced);
        assert_eq!(primary.state().epoch, promotion.epoch);
        let present: BTreeSet<_> = all(&primary, "acme")
            .await
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|key| !present.contains(key.as_bytes()))
            .collect();
        assert!(lost.is_empty(), "seed {seed} round {round} lost {lost:?}");
        pair.mend();
        let name = standby.status().node;
        connected(&primary, &name).await;
        role(&standby, NodeRole::Standby).await;
    }
    // One more write, so that both are known to be at the same place.
    put(&primary, "acme", "last", "v", Durability::Replicated)
        .await
        .unwrap();
    assert!(
        all(&primary, "acme").await == all(&standby, "acme").await,
        "seed {seed}"
    );
    println!(
        "{} acknowledged writes over {ROUNDS} failovers",
        acknowledged.len()
    );
}

//! An application that writes at `Replicated` and reads, and strangers that only read; what they see goes into one
//! recorder each.
//!
//! The application's tasks are clones of one client, as the threads of one process would use it. Each stranger
//! has a client of its own: it learns of a new primary only by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strongroom_client::{Client, ClientConfig, Durability, Kind, WriteOptions};
use strongroom_tests::dice::Dice;
use strongroom_tests::history::{Outcome as Ended, Recorder};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::pair::{Outcome, PATIENCE};

const KEYSPACE: &str = "history";
/// Few, so that every key is read and written all the time.
const KEYS: u64 = 24;
const WRITES_PERCENT: u64 = 60;
/// A call to a node that was stopped ends so soon.
const CALL: Duration = Duration::from_millis(700);

/// What the tasks share.
pub struct Shared {
    /// All calls; their keys are numbers below [`KEYS`], of strangers above [`STRANGERS`].
    pub recorder: Recorder,
    stop: AtomicBool,
    next_value: AtomicU64,
    /// Writes acknowledged.
    pub acknowledged: AtomicU64,
    /// Calls answered.
    pub answered: AtomicU64,
    /// Told each time one of these two has grown.
    grew: Notify,
}

/// Added to the key of a stranger's read in the recorder.
pub const STRANGERS: u64 = 1 << 32;

/// The tasks under way.
pub struct Clients {
    /// What they saw.
    pub shared: Arc<Shared>,
    application: Client,
    tasks: JoinSet<Outcome>,
}

impl Clients {
    /// Starts `tasks` tasks of the application and as many strangers as `strangers`.
    pub async fn start(
        mut config: ClientConfig,
        tasks: u64,
        strangers: u64,
        dice: &mut Dice,
    ) -> Outcome<Clients> {
        config.connect_timeout = CALL;
        config.request_timeout = CALL;
        config.failover_timeout = Duration::from_secs(30);
        let shared = Arc::new(Shared {
            recorder: Recorder::new(),
            stop: AtomicBool::new(false),
            next_value: AtomicU64::new(1),
            acknowledged: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            grew: Notify::new(),
        });
        let connect = async || {
            Client::connect(config.clone())
                .await
                .map_err(|e| format!("connect: {e:?}"))
        };
        let application = connect().await?;
        let mut running = JoinSet::new();
        for _ in 0..tasks {
            running.spawn(work(application.clone(), shared.clone(), Dice::new(dice.roll())));
        }
        for _ in 0..strangers {
            running.spawn(watch(connect().await?, shared.clone(), Dice::new(dice.roll())));
        }
        Ok(Clients {
            shared,
            application,
            tasks: running,
        })
    }

    /// Waits until `counter` has grown by `more`; an error if a client found something wrong, or never.
    pub async fn wait(
        &mut self,
        what: &str,
        counter: fn(&Shared) -> &AtomicU64,
        more: u64,
    ) -> Outcome<Duration> {
        let begun = Instant::now();
        let target = counter(&self.shared).load(Ordering::SeqCst) + more;
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            // Asked for before the look, so that no growth is missed.
            let grew = self.shared.grew.notified();
            tokio::pin!(grew);
            grew.as_mut().enable();
            if counter(&self.shared).load(Ordering::SeqCst) >= target {
                return Ok(begun.elapsed());
            }
            tokio::select! {
                () = grew => {}
                Some(ended) = self.tasks.join_next() => return Err(format!("a client ended: {ended:?}")),
                () = &mut patience => return Err(format!("{what}: not within {PATIENCE:?}")),
            }
        }
    }

    /// Ends all tasks, and reads every key once more.
    pub async fn finish(mut self) -> Outcome<Arc<Shared>> {
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|e| e.to_string())??;
        }
        for key in 0..KEYS {
            get(&self.application, &self.shared, key, key).await?;
        }
        Ok(self.shared)
    }
}

async fn work(client: Client, shared: Arc<Shared>, mut dice: Dice) -> Outcome {
    while !shared.stop.load(Ordering::SeqCst) {
        let key = dice.below(KEYS);
        if dice.percent(WRITES_PERCENT) {
            put(&client, &shared, key, &mut dice).await;
        } else {
            get(&client, &shared, key, key).await?;
        }
    }
    Ok(())
}

async fn watch(client: Client, shared: Arc<Shared>, mut dice: Dice) -> Outcome {
    while !shared.stop.load(Ordering::SeqCst) {
        let key = dice.below(KEYS);
        get(&client, &shared, key, STRANGERS + key).await?;
        // Its pace: strangers look now and then.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn put(client: &Client, shared: &Shared, key: u64, dice: &mut Dice) {
    let value = shared.next_value.fetch_add(1, Ordering::SeqCst);
    let text = format!("{value}:{}", "x".repeat(dice.below(400) as usize));
    let options = WriteOptions::new().durability(Durability::Replicated);
    let call = shared.recorder.call(key);
    let result = client.put_with(KEYSPACE, key.to_string(), text, options).await;
    let ended = match result.map_err(|e| e.kind()) {
        Ok(_) => Ended::Ok,
        // What these promise is part of what is tested: such a write must never be read.
        Err(Kind::NotPrimary | Kind::Fenced | Kind::Closed | Kind::Unavailable | Kind::Busy) => Ended::Failed,
        Err(_) => Ended::Unknown,
    };
    call.put(value, ended);
    if ended == Ended::Ok {
        shared.acknowledged.fetch_add(1, Ordering::SeqCst);
        shared.answered.fetch_add(1, Ordering::SeqCst);
        shared.grew.notify_waiters();
    }
}

async fn get(client: &Client, shared: &Shared, key: u64, recorded_as: u64) -> Outcome {
    let call = shared.recorder.call(recorded_as);
    match client.get(KEYSPACE, key.to_string()).await {
        Ok(value) => {
            let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.split_once(':')?.0.parse().ok();
            let value = match value {
                Some(bytes) => Some(number(&bytes).ok_or("a value that nobody wrote")?),
                None => None,
            };
            call.got(value);
            shared.answered.fetch_add(1, Ordering::SeqCst);
            shared.grew.notify_waiters();
            Ok(())
        }
        Err(e) => match e.kind() {
            Kind::Unavailable
            | Kind::NotPrimary
            | Kind::Fenced
            | Kind::Closed
            | Kind::Timeout
            | Kind::Busy => Ok(()),
            kind => Err(format!("a read ended in {kind:?}: {e}")),
        },
    }
}

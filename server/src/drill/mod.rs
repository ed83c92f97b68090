//! `drill`: the whole story on this machine, on real data, with a report.
//!
//! ```text
//! start     two processes of this binary over TLS on loopback, certificates and keys made for the run
//! load      events at Replicated from several clients, every acknowledgement noted
//! kill      SIGKILL to the primary in mid-write
//! promote   the standby takes over; the first write
//! verify    every acknowledged write is there, every unknown batch whole or absent
//! write     the rest, at Local: the pair has lost its standby
//! delete    one tenant; it stays unreadable by token, by name and in an older backup
//! backup    and the keys apart
//! restore   elsewhere: fenced, of its own identity; accepted, compared whole
//! search    every file and every printed line for plaintext, after the search has proved itself
//! ```
//!
//! All of it happens in a temporary directory that is removed if all is well, and kept and named if not.

mod canaries;
mod compare;
mod data;
mod failover;
mod load;
mod model;
pub(crate) mod random;
mod recovery;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use strongroom_client::{AdminClient, Client};

use crate::cli::exit::{self, Exit, Failure, Outcome};
use crate::cli::interrupted;
use crate::cli::output::{self, Format};
use crate::cli::pair::Pair;
use canaries::Canaries;
use data::Data;
use model::Model;
use random::Random;
use report::{Report, Teller};

/// Longest wait for anything that should take a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the nodes log: more than in production, so that a leak into a log would show.
const LOG: &str = "info,strongroom=debug,strongroom_server=debug,strongroom_replication=debug";

/// Events whose keys and values become canaries; users, names and tokens all do.
const SAMPLED: usize = 6000;

/// Paths as short as this occur in other places than events.
const PATH_BYTES_MIN: usize = 24;

/// With fewer events for each client, all could be written before the kill.
const EVENTS_PER_CLIENT: usize = 200;

/// Flags.
#[derive(Args, Debug)]
pub struct DrillArgs {
    /// NDJSON events with tenant, user and ts, plain or zstd, instead of the built-in sample
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Clients that write at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// Keep the directory with everything in it
    #[arg(long)]
    keep: bool,
    /// Repeat the random choices of a run (not its timing)
    #[arg(long, value_name = "N", env = "STRONGROOM_SEED")]
    seed: Option<u64>,
}

/// A run under way.
struct Drill {
    data: Arc<Data>,
    model: Arc<Model>,
    random: Random,
    clients: usize,
    pair: Pair,
    /// By tenant, in the order of the data.
    tokens: Vec<String>,
    report: Report,
    tell: Teller,
}

/// Runs the drill. Exit 0 only when nothing was lost, all is equal and nothing was found in clear.
pub async fn run(args: DrillArgs, format: Format) -> Outcome {
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let mut random = Random::new(seed);
    let mark = format!("{:016x}", random.next());
    let tell = Teller::new(format);
    let data = Data::read(args.data.as_deref(), &mark)?;
    if data.events.len() < EVENTS_PER_CLIENT * usize::from(args.clients) {
        return Err(Failure::usage(format!(
            "{}: {} events are too few for {} clients: at least {EVENTS_PER_CLIENT} for each",
            data.origin,
            data.events.len(),
            args.clients
        )));
    }
    let temporary = tempfile::Builder::new().prefix("strongroom-drill-").tempdir()?;
    let dir = temporary
        .path()
        .canonicalize()
        .map_err(exit::at(temporary.path()))?;
    tell.line(&format!(
        "Strongroom drill: {} events ({}) of {} tenants from {}; seed {seed}",
        output::count(data.events.len() as u64),
        output::bytes(data.bytes()),
        data.tenants.len(),
        data.origin
    ));
    let report = Report {
        seed,
        tenants: data.tenants.len() as u64,
        events: data.events.len() as u64,
        clients: u64::from(args.clients),
        ..Report::default()
    };
    // Several memtables in any run, so that tables, compactions and more than one segment are in it.
    let memtable = (data.bytes() / 6).clamp(64 << 10, 64 << 20);
    let pair = Pair::prepare(
        &dir,
        &format!("memtable_bytes = {memtable}\nsegment_bytes = {memtable}"),
    )?;
    let mut drill = Drill {
        model: Arc::new(Model::new(data.events.len())),
        data: Arc::new(data),
        random,
        clients: usize::from(args.clients),
        pair,
        tokens: Vec::new(),
        report,
        tell,
    };
    let result = tokio::select! {
        result = drill.all() => result,
        stopped = interrupted() => {
            stopped?;
            // The children go with the pair, the directory with its guard.
            return Err(Failure::new(Exit::Interrupted, "interrupted"));
        }
    };
    let Drill {
        mut report,
        tell,
        pair,
        ..
    } = drill;
    drop(pair);
    report.seconds = tell.elapsed().as_secs_f64();
    report.finished = result.is_ok();
    let mut code = Exit::Failed;
    if let Err(failure) = result {
        code = failure.exit;
        report.error = Some(failure.message);
    }
    let well = report.faults().is_empty();
    if args.keep || !well {
        report.kept = Some(temporary.keep());
    }
    tell.end(&report);
    if well {
        Ok(())
    } else {
        Err(Failure::new(code, report.faults().join("\n")))
    }
}

impl Drill {
    async fn all(&mut self) -> Outcome {
        let old = self.start().await?;
        let killed = self.load_and_kill(old).await?;
        let clients = self.promote(&killed).await?;
        self.verify(&clients, &killed).await?;
        self.write_rest(&clients).await?;
        let deleted = self.delete(&clients).await?;
        self.restore(&clients, &deleted).await?;
        self.pair.b.stop(PATIENCE).await?;
        self.search()
    }

    fn dir(&self) -> &Path {
        &self.pair.dir
    }

    /// The administration service of the promoted node.
    async fn admin(&self) -> Outcome<AdminClient> {
        self.pair.admin(&self.pair.b).await
    }

    /// Connects once for every tenant.
    async fn connect(&self, endpoints: &[String], failover: Duration) -> Outcome<Vec<Client>> {
        let path = self.pair.tenants_ca();
        let ca = std::fs::read(&path).map_err(exit::at(&path))?;
        load::connect(endpoints, &ca, &self.tokens, failover).await
    }

    /// Looks for plaintext in everything the run left. All processes have ended.
    fn search(&mut self) -> Outcome {
        let canaries = self.canaries()?;
        self.report.planted_found = canaries.prove(&self.dir().join("planted"))?;
        let searched = canaries.search(self.dir())?;
        self.report.canaries = canaries.len();
        self.report.files_searched = searched.files;
        self.report.bytes_searched = searched.bytes;
        self.report.plaintext_found = searched.found;
        let kinds: Vec<String> = canaries
            .kinds()
            .iter()
            .map(|(kind, n)| format!("{} {kind}", output::count(*n)))
            .collect();
        self.tell.step(
            "search",
            &format!(
                "{} canaries in {} files, {}: {} found ({} planted ones were found before)",
                output::count(canaries.len()),
                output::count(searched.files),
                output::bytes(searched.bytes),
                searched.found,
                self.report.planted_found
            ),
        );
        self.tell.more(&format!(
            "both nodes, backups, restored copies, logs; {}",
            kinds.join(", ")
        ));
        for hit in &searched.hits {
            let place = hit
                .offset
                .map_or_else(|| "its name".to_owned(), |offset| format!("byte {offset}"));
            self.tell.more(&format!(
                "IN CLEAR: a {} in {} at {place}",
                hit.kind,
                hit.file.display()
            ));
        }
        Ok(())
    }

    fn canaries(&mut self) -> Outcome<Canaries> {
        let mut builder = canaries::Builder::default();
        let data = self.data.clone();
        builder.add("keyspace name", data.keyspace.as_bytes());
        for tenant in &data.tenants {
            builder.add("tenant name", tenant.name.as_bytes());
        }
        for token in &self.tokens {
            // The part before the dot names the token and is no secret.
            builder.add("token", token.rsplit('.').next().unwrap_or_default().as_bytes());
        }
        for event in &data.events {
            let user = event.key.split(|byte| *byte == 0).next().unwrap_or_default();
            // A user without a digit may be a word of any log.
            if user.iter().any(u8::is_ascii_digit) {
                builder.add("user", user);
            }
        }
        let mut chosen: Vec<usize> = (0..data.events.len()).collect();
        if chosen.len() > SAMPLED {
            let last = data.events.len() as u64 - 1;
            chosen = (0..SAMPLED)
                .map(|_| self.random.between(0, last) as usize)
                .collect();
        }
        for event in chosen.into_iter().filter_map(|index| data.events.get(index)) {
            builder.add("value", &event.value);
            builder.add("key", &event.key);
            builder.add("key in hexadecimal", hex::encode(&event.key).as_bytes());
            let path = serde_json::from_slice::<serde_json::Value>(&event.value)
                .ok()
                .and_then(|value| value.get("path")?.as_str().map(str::to_owned));
            if let Some(path) = path.filter(|path| path.len() >= PATH_BYTES_MIN) {
                builder.add("path", path.as_bytes());
            }
        }
        builder.build()
    }
}

fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

//! The story, step by step. Each step prints a line with its figures; the last one is the verdict.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use strongroom::io::Io;
use strongroom::keys::{EscrowSecret, KeyFile};
use strongroom::{Engine, ErrorKind};
use strongroom_client::proto::admin::{CreateBackupRequest, PromoteRequest};
use strongroom_client::proto::kv::Durability;
use strongroom_client::{AdminClient, Client, ClientConfig, RangeOptions};

use super::canaries::{Builder, CANARY_BYTES_MIN, Canaries};
use super::data::Data;
use super::model::{Fate, Found, Model, Walk};
use super::report::{Figures, Report};
use super::writers::{Round, Unit, units};
use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::output;
use crate::cli::pair::{Node, Pair};

/// Longest wait for the pair to be in sync, or for a node to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the nodes log.
const LOG: &str = "info";
/// Canaries of each kind at most: enough to be sure, few enough to search quickly.
const CANARIES_MAX: usize = 20_000;

/// What to do.
pub struct Options {
    /// NDJSON, also zstd-compressed; None: the sample in the program.
    pub data: Option<PathBuf>,
    /// Clients that write at once.
    pub clients: usize,
    /// Chooses the moment of the kill.
    pub seed: u64,
    /// Marks tenants' and keyspaces' names of this run.
    pub mark: String,
}

/// Runs the drill in `dir`.
pub async fn run(options: &Options, dir: &Path, report: &mut Report) -> Outcome<Figures> {
    let mut figures = Figures::default();
    let data = Arc::new(Data::read(options.data.as_deref(), &options.mark)?);
    let model = Arc::new(Model::new(data.events.len()));
    let all_units = Arc::new(units(&data));
    figures.tenants = data.tenants.len() as u64;
    figures.events = data.events.len() as u64;
    report.step(format!(
        "data: {} events of {} tenants, {} ({})",
        output::count(figures.events),
        figures.tenants,
        output::bytes(data.bytes()),
        data.origin
    ));

    let mut pair = Pair::prepare(dir, "")?;
    let took = pair.start(LOG, PATIENCE).await?;
    report.step(format!(
        "a primary and a standby, two processes over TLS: in sync after {}",
        output::span(took)
    ));
    let admin = pair.admin(&pair.a).await?;
    let tokens = tenants(&admin, &data).await?;
    report.step(format!("{} tenants and their tokens created", tokens.len()));

    let killed_at = write_and_kill(
        options,
        &mut pair,
        &tokens,
        (&data, &model, &all_units),
        report,
        &mut figures,
    )
    .await?;
    let admin = pair.admin(&pair.b).await?;
    promote(&admin, pair.a.name, report, &mut figures).await?;
    let clients = connect(&pair, &pair.b, &tokens).await?;
    first_write(&data, &model, &all_units, &clients, killed_at, &mut figures).await?;
    report.step(format!(
        "promoted in {} ms; first write {} ms after the kill",
        figures.promote_ms, figures.first_write_after_kill_ms
    ));

    check(&data, &model, &all_units, &clients, report, &mut figures).await?;
    write_rest(
        options,
        &data,
        &model,
        &all_units,
        clients.clone(),
        report,
        &mut figures,
    )
    .await?;

    let gone = data.smallest();
    delete_tenant(&admin, &pair, &data, gone, &tokens, report, &mut figures).await?;
    admin.compact().await?;
    let secret = backup(&admin, dir, report, &mut figures).await?;
    restore(dir, secret, &data, &model, gone, report, &mut figures).await?;
    let live = compare_live(&data, &model, &clients, gone).await?;
    figures.restore_equal &= live.equal();

    drop((admin, clients));
    pair.b.stop(PATIENCE).await?;
    search(dir, &data, report, &mut figures)?;
    Ok(figures)
}

async fn client(pair: &Pair, node: &Node, token: &str) -> Outcome<Client> {
    let mut config = ClientConfig::new([node.endpoint()?], token);
    let ca = pair.tenants_ca();
    config.ca_pem = Some(std::fs::read(&ca).map_err(exit::at(&ca))?);
    // A killed node does not come back in this drill.
    config.failover_timeout = Duration::from_millis(500);
    Ok(Client::connect(config).await?)
}

async fn tenants(admin: &AdminClient, data: &Data) -> Outcome<Vec<String>> {
    let mut tokens = Vec::new();
    for tenant in &data.tenants {
        admin.create_tenant(&tenant.name).await?;
        tokens.push(admin.create_token(&tenant.name).await?.token);
    }
    Ok(tokens)
}

async fn connect(pair: &Pair, node: &Node, tokens: &[String]) -> Outcome<Vec<Client>> {
    let mut clients = Vec::new();
    for token in tokens {
        clients.push(client(pair, node, token).await?);
    }
    Ok(clients)
}

/// Several clients write at `Replicated`; somewhere in the middle half the primary is killed.
async fn write_and_kill(
    options: &Options,
    pair: &mut Pair,
    tokens: &[String],
    (data, model, all): (&Arc<Data>, &Arc<Model>, &Arc<Vec<Unit>>),
    report: &mut Report,
    figures: &mut Figures,
) -> Outcome<Instant> {
    let clients = connect(pair, &pair.a, tokens).await?;
    let todo = (0..all.len()).collect();
    let round = Arc::new(Round::new(
        data,
        model,
        all,
        todo,
        clients,
        Durability::Replicated,
    ));
    let events = data.events.len() as u64;
    // A quarter to three quarters of the way.
    let kill_after = events / 4 + options.seed % (events / 2).max(1);
    let since = Instant::now();
    let writers: Vec<_> = (0..options.clients)
        .map(|_| {
            let round = round.clone();
            tokio::spawn(async move { round.write().await })
        })
        .collect();
    let progress = output::progress(kill_after, "events");
    loop {
        let told = round.progress.notified();
        let acknowledged = round.acknowledged.load(Ordering::Relaxed);
        progress.set_position(acknowledged.min(kill_after));
        if acknowledged >= kill_after || writers.iter().all(|w| w.is_finished()) {
            break;
        }
        told.await;
    }
    progress.finish_and_clear();
    let took = since.elapsed();
    let acknowledged = round.acknowledged.load(Ordering::Relaxed);
    if acknowledged < kill_after {
        let mut why = String::from("no reason given");
        for writer in writers {
            if let Ok(Some(error)) = writer.await {
                why = error.to_string();
            }
        }
        // What it printed tells more, if it is gone.
        pair.a.alive()?;
        return Err(Failure::failed(format!("writing stopped before the kill: {why}")));
    }
    let killed_at = Instant::now();
    pair.a.kill()?;
    for writer in writers {
        writer
            .await
            .map_err(|e| Failure::failed(format!("a client panicked: {e}")))?;
    }
    figures.acknowledged_writes = model.count(Fate::Acknowledged);
    figures.unknown_writes = model.count(Fate::Unknown);
    figures.writes_per_second = (acknowledged as f64 / took.as_secs_f64().max(1e-9)).round() as u64;
    figures.writing_seconds = took.as_secs_f64();
    report.step(format!(
        "{} clients wrote at Replicated: {} acknowledged in {}, {} a second; primary killed (SIGKILL) with {} in flight",
        options.clients,
        output::count(figures.acknowledged_writes),
        output::span(took),
        output::count(figures.writes_per_second),
        figures.unknown_writes
    ));
    Ok(killed_at)
}

async fn promote(admin: &AdminClient, primary: &str, report: &mut Report, figures: &mut Figures) -> Outcome {
    let request = |dry_run| PromoteRequest {
        expect_primary: primary.into(),
        dry_run,
        ..PromoteRequest::default()
    };
    let before = admin.promote(request(true)).await?;
    report.note(format!(
        "before promoting: at most {} bytes of log could be missing",
        before.loss_bytes
    ));
    let since = Instant::now();
    admin.promote(request(false)).await?;
    figures.promote_ms = millis(since.elapsed());
    Ok(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Writes the first unit that was never sent; the pair is one node now, so `Local`.
async fn first_write(
    data: &Arc<Data>,
    model: &Arc<Model>,
    all: &Arc<Vec<Unit>>,
    clients: &[Client],
    killed_at: Instant,
    figures: &mut Figures,
) -> Outcome {
    let pending = |unit: &Unit| {
        unit.events
            .iter()
            .all(|index| model.fate(*index) == Fate::Pending)
    };
    let Some(first) = all.iter().position(pending) else {
        return Err(Failure::failed("nothing was left to write after the kill"));
    };
    let round = Round::new(data, model, all, vec![first], clients.to_vec(), Durability::Local);
    if let Some(error) = round.write().await {
        return Err(Failure::from(error).during("the first write on the promoted standby"));
    }
    figures.first_write_after_kill_ms = millis(killed_at.elapsed());
    Ok(())
}

/// Reads everything of every tenant but `except` and compares it with the model.
async fn compare(data: &Data, model: &Model, clients: &[Client], except: Option<usize>) -> Outcome<Found> {
    let mut found = Found::default();
    for (tenant, client) in clients
        .iter()
        .enumerate()
        .filter(|(tenant, _)| Some(*tenant) != except)
    {
        let mut walk = Walk::new(data, model, tenant);
        let read = async {
            let mut entries = client.range(&data.keyspace, RangeOptions::all()).await?;
            while let Some((key, value)) = entries.next().await? {
                walk.entry(&key, &value);
            }
            Ok(())
        };
        match read.await {
            Ok(()) => {}
            // No write reached this tenant before the kill: it has no keyspace yet.
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(Failure::from(error).during("reading everything back")),
        }
        found.add(walk.end());
    }
    Ok(found)
}

fn is_absent(error: &strongroom_client::ClientError) -> bool {
    error.kind() == strongroom_client::Kind::NotFound
}

async fn check(
    data: &Data,
    model: &Model,
    all: &[Unit],
    clients: &[Client],
    report: &mut Report,
    figures: &mut Figures,
) -> Outcome {
    let found = compare(data, model, clients, None).await?;
    let unknown: Vec<Vec<u32>> = all
        .iter()
        .filter(|unit| {
            unit.events
                .iter()
                .any(|index| model.fate(*index) == Fate::Unknown)
        })
        .map(|unit| unit.events.clone())
        .collect();
    figures.lost_writes = found.lost + found.different + found.foreign;
    figures.torn_batches = found.torn(&unknown);
    report.step(format!(
        "checked on the new primary: {} acknowledged writes, {} lost, {} different, {} foreign; {} batches torn; \
         of {} in flight {} arrived",
        output::count(found.acknowledged),
        found.lost,
        found.different,
        found.foreign,
        figures.torn_batches,
        figures.unknown_writes,
        found.unknown_there.len()
    ));
    Ok(())
}

async fn write_rest(
    options: &Options,
    data: &Arc<Data>,
    model: &Arc<Model>,
    all: &Arc<Vec<Unit>>,
    clients: Vec<Client>,
    report: &mut Report,
    figures: &mut Figures,
) -> Outcome {
    let open = |unit: &Unit| {
        unit.events
            .iter()
            .any(|index| model.fate(*index) != Fate::Acknowledged)
    };
    let todo = all
        .iter()
        .enumerate()
        .filter(|(_, unit)| open(unit))
        .map(|(n, _)| n)
        .collect();
    let round = Arc::new(Round::new(data, model, all, todo, clients, Durability::Local));
    let writers: Vec<_> = (0..options.clients)
        .map(|_| {
            let round = round.clone();
            tokio::spawn(async move { round.write().await })
        })
        .collect();
    for writer in writers {
        match writer.await {
            Ok(None) => {}
            Ok(Some(error)) => return Err(Failure::from(error).during("writing the rest")),
            Err(e) => return Err(Failure::failed(format!("a client panicked: {e}"))),
        }
    }
    let written = round.acknowledged.load(Ordering::Relaxed);
    figures.written_after = written;
    report.step(format!(
        "the rest written there: {} at Local, for it has no standby until one is set up again",
        output::count(written)
    ));
    Ok(())
}

async fn delete_tenant(
    admin: &AdminClient,
    pair: &Pair,
    data: &Data,
    gone: usize,
    tokens: &[String],
    report: &mut Report,
    figures: &mut Figures,
) -> Outcome {
    let (Some(tenant), Some(token)) = (data.tenants.get(gone), tokens.get(gone)) else {
        return Err(Failure::failed("no tenant to delete"));
    };
    let deleted = admin.delete_tenant(&tenant.name).await?;
    // By its old token, by a new one, by asking for it again.
    let by_token = match client(pair, &pair.b, token).await {
        Ok(client) => client.range(&data.keyspace, RangeOptions::all()).await.is_ok(),
        Err(_) => false,
    };
    let by_new_token = admin.create_token(&tenant.name).await.is_ok();
    let (listed, _) = admin.list_tenants(0, 10_000).await?;
    let by_name = listed.iter().any(|other| other.name == tenant.name);
    figures.deleted_tenant_readable = by_token || by_new_token || by_name;
    report.step(format!(
        "tenant {} deleted with {} entries: readable {}",
        deleted.tenant_id,
        output::count(tenant.by_key.len() as u64),
        if figures.deleted_tenant_readable {
            "STILL"
        } else {
            "no more"
        }
    ));
    Ok(())
}

async fn backup(
    admin: &AdminClient,
    dir: &Path,
    report: &mut Report,
    figures: &mut Figures,
) -> Outcome<EscrowSecret> {
    let secret = EscrowSecret::generate()?;
    secret.save(dir.join("restore.secret"))?;
    let kept_apart = dir.join("escrow");
    std::fs::create_dir_all(&kept_apart).map_err(exit::at(&kept_apart))?;
    let request = CreateBackupRequest {
        directory: dir.join("backup").display().to_string(),
        escrow_recipient: secret.recipient().to_text(),
        escrow_path: kept_apart.join("keys.escrow").display().to_string(),
    };
    let since = Instant::now();
    let done = admin.create_backup(request).await?;
    figures.backup_bytes = done.bytes;
    report.step(format!(
        "backup: {} in {} files in {}; its keys apart, {}",
        output::bytes(done.bytes),
        done.files,
        output::span(since.elapsed()),
        output::bytes(done.escrow_bytes)
    ));
    Ok(secret)
}

/// Restores into a new database with its own key file, and compares every tenant with the model.
async fn restore(
    dir: &Path,
    secret: EscrowSecret,
    data: &Arc<Data>,
    model: &Arc<Model>,
    gone: usize,
    report: &mut Report,
    figures: &mut Figures,
) -> Outcome {
    let (dir, data, model) = (dir.to_path_buf(), data.clone(), model.clone());
    let since = Instant::now();
    let work = move || restore_and_compare(&dir, &secret, &data, &model, gone);
    let restored = tokio::task::spawn_blocking(work).await;
    let (found, fenced) = restored.map_err(|e| Failure::failed(format!("restoring panicked: {e}")))??;
    figures.restore_equal = found.equal() && fenced;
    report.step(format!(
        "restored elsewhere, fenced until accepted: {} entries in {}, {}",
        output::count(found.entries),
        output::span(since.elapsed()),
        if figures.restore_equal {
            "all equal"
        } else {
            "NOT EQUAL"
        }
    ));
    Ok(())
}

fn restore_and_compare(
    dir: &Path,
    secret: &EscrowSecret,
    data: &Data,
    model: &Model,
    gone: usize,
) -> Outcome<(Found, bool)> {
    let escrow = dir.join("escrow").join("keys.escrow");
    let escrow = std::fs::read(&escrow).map_err(exit::at(&escrow))?;
    let keys = Arc::new(KeyFile::create(dir.join("restored.key"))?);
    let to = dir.join("restored");
    strongroom::restore(dir.join("backup"), &escrow, secret, &to, keys.clone(), &Io::os())?;
    let engine = Engine::builder(&to)
        .shared_keys(keys)
        .create_if_missing(false)
        .open()?;
    let mut found = Found::default();
    let mut fenced = engine.status().awaiting_acceptance;
    for (n, tenant) in data.tenants.iter().enumerate() {
        let opened = engine.tenant(&tenant.name);
        if n == gone {
            fenced &= opened.is_err_and(|e| e.kind() == ErrorKind::NotFound);
            continue;
        }
        let keyspace = opened?.open_keyspace(&data.keyspace)?;
        fenced &= keyspace.put("refused", "while fenced").is_err();
        let mut walk = Walk::new(data, model, n);
        for entry in keyspace.iter() {
            let (key, value) = entry?;
            walk.entry(&key, &value);
        }
        found.add(walk.end());
    }
    engine.accept_restored()?;
    engine.close()?;
    Ok((found, fenced))
}

async fn compare_live(data: &Data, model: &Model, clients: &[Client], gone: usize) -> Outcome<Found> {
    compare(data, model, clients, Some(gone)).await
}

/// Looks for what tenants wrote in every file that is left, and in everything that was printed.
fn search(dir: &Path, data: &Data, report: &mut Report, figures: &mut Figures) -> Outcome {
    let canaries = canaries(data)?;
    let planted = canaries.prove(&dir.join("proof"))?;
    let since = Instant::now();
    let searched = canaries.search(dir)?;
    figures.plaintext_found = searched.found;
    figures.files_searched = searched.files;
    figures.bytes_searched = searched.bytes;
    figures.canaries = canaries.len();
    report.step(format!(
        "searched {} files, {}, for {} strings of the tenants' in {}: {} found ({} planted ones were found before)",
        searched.files,
        output::bytes(searched.bytes),
        output::count(canaries.len()),
        output::span(since.elapsed()),
        searched.found,
        planted
    ));
    for hit in searched.hits.iter().take(10) {
        report.note(format!(
            "{} in clear: {} at {:?}",
            hit.kind,
            hit.file.display(),
            hit.offset
        ));
    }
    Ok(())
}

fn canaries(data: &Data) -> Outcome<Canaries> {
    let mut builder = Builder::default();
    for tenant in &data.tenants {
        builder.add("tenant name", tenant.name.as_bytes());
    }
    builder.add("keyspace name", data.keyspace.as_bytes());
    let stride = data.events.len().div_ceil(CANARIES_MAX).max(1);
    for event in data.events.iter().step_by(stride) {
        builder.add("value", &event.value);
        builder.add("key", &event.key);
        if let Some(user) = event.key.split(|b| *b == 0).next()
            && user.len() >= CANARY_BYTES_MIN
        {
            builder.add("user", user);
        }
        if let Some(path) = path_of(&event.value) {
            builder.add("path", path);
        }
    }
    builder.build()
}

/// The longest text in a value: a part of it on a disk is a leak as much as the whole.
fn path_of(value: &[u8]) -> Option<&[u8]> {
    value
        .split(|b| *b == b'"')
        .max_by_key(|part| part.len())
        .filter(|part| part.len() >= 16)
}

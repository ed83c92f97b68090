//! `stats`: what one node's engine holds and does.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use strongroom_client::proto::admin::{JobStats, StatsResponse};

use super::connect::AdminArgs;
use super::exit::Outcome;
use super::output::{self, Format, bytes, count, span};

/// Flags.
#[derive(Args, Debug)]
pub struct StatsArgs {
    #[command(flatten)]
    connection: AdminArgs,
}

/// Prints the statistics of the node that is asked.
pub async fn run(args: StatsArgs, format: Format) -> Outcome {
    let stats = args.connection.one().await?.stats().await?;
    match format {
        Format::Json => output::json(to_json(&stats)),
        Format::Table => {
            let levels = stats.levels.iter().enumerate().map(|(level, stats)| {
                vec![
                    format!("level {level}"),
                    count(stats.tables),
                    bytes(stats.bytes),
                    count(stats.entries),
                    count(stats.deletes),
                ]
            });
            output::table(&["tables", "number", "size", "entries", "deletes"], levels);
            output::line("");
            output::table(
                &["what", "now, or since the node's engine was opened"],
                rows(&stats),
            );
        }
    }
    Ok(())
}

fn rows(stats: &StatsResponse) -> Vec<Vec<String>> {
    let row = |what: &str, value: String| vec![what.to_owned(), value];
    let mut rows = vec![
        row("of deleted tenants", bytes(stats.dead_bytes)),
        row(
            "values apart",
            format!(
                "{} in {} files, {}, {} of it not needed",
                count(stats.values),
                count(stats.value_files),
                bytes(stats.value_bytes),
                bytes(stats.value_garbage_bytes)
            ),
        ),
        row(
            "memtables",
            format!(
                "{} and {} that wait for flush, {}, of {}",
                bytes(stats.memtable_bytes),
                count(stats.immutable_memtables),
                bytes(stats.immutable_memtable_bytes),
                bytes(stats.memtable_bytes_max)
            ),
        ),
        row(
            "cache",
            format!("{} of {}", bytes(stats.cache_bytes), bytes(stats.cache_bytes_max)),
        ),
        row(
            "reads",
            format!(
                "{} gets, {} ranges; not in the cache {} pieces, {} read",
                count(stats.gets),
                count(stats.ranges),
                count(stats.pieces_read),
                bytes(stats.bytes_read)
            ),
        ),
        row(
            "log",
            format!(
                "{} in {} segments, {} not in tables, {} not on stable storage",
                bytes(stats.wal_written_lsn.saturating_sub(stats.wal_start_lsn)),
                count(stats.wal_segments),
                bytes(stats.wal_written_lsn.saturating_sub(stats.wal_flushed_lsn)),
                bytes(stats.wal_written_lsn.saturating_sub(stats.wal_durable_lsn))
            ),
        ),
        row(
            "commits",
            format!(
                "{}, {} syncs, {} puts, {} deletes, {}",
                count(stats.commits),
                count(stats.wal_syncs),
                count(stats.puts),
                count(stats.deletes),
                bytes(stats.written_bytes)
            ),
        ),
        row(
            "writers slowed down",
            format!(
                "{} times, {} for memtables, {} for level 0, {} for lower levels",
                count(stats.delays),
                span(Duration::from_micros(stats.delayed_memtables_us)),
                span(Duration::from_micros(stats.delayed_level0_us)),
                span(Duration::from_micros(stats.delayed_levels_us))
            ),
        ),
        row(
            "slowed down now",
            match (stats.write_rate, &stats.pressure) {
                (Some(rate), Some(why)) => format!("to {} a second, for {why}", bytes(rate)),
                _ => "no".to_owned(),
            },
        ),
        row(
            "writers stopped",
            format!(
                "{} times, {}",
                count(stats.stalls),
                span(Duration::from_micros(stats.stalled_us))
            ),
        ),
        row("flushes", job(stats.flushes.as_ref())),
        row("compactions", job(stats.compactions.as_ref())),
        row(
            "at work now",
            if stats.job_running { "yes" } else { "no" }.to_owned(),
        ),
        row(
            "snapshots",
            match stats.oldest_snapshot_seqno {
                Some(oldest) => format!(
                    "{}, the oldest {} versions behind",
                    count(stats.snapshots),
                    count(stats.visible_seqno.saturating_sub(oldest))
                ),
                None => count(stats.snapshots),
            },
        ),
        row("tenants", count(stats.tenants)),
    ];
    if let Some(why) = &stats.job_failure {
        rows.push(row("last job failed", why.clone()));
    }
    rows
}

fn job(job: Option<&JobStats>) -> String {
    let Some(job) = job else { return "-".into() };
    format!(
        "{}, {} failed, {} read, {} written, {}",
        count(job.count),
        count(job.failed),
        bytes(job.bytes_read),
        bytes(job.bytes_written),
        span(Duration::from_micros(job.took_us))
    )
}

fn to_json(stats: &StatsResponse) -> Value {
    let levels = stats.levels.iter().map(|level| {
        json!({
            "tables": level.tables, "bytes": level.bytes, "entries": level.entries, "deletes": level.deletes,
        })
    });
    let job = |job: Option<&JobStats>| {
        job.map(|job| {
            json!({
                "count": job.count, "failed": job.failed, "bytes_read": job.bytes_read,
                "bytes_written": job.bytes_written, "took_us": job.took_us,
            })
        })
    };
    let reads = json!({
        "gets": stats.gets, "ranges": stats.ranges, "pieces_read": stats.pieces_read, "bytes_read": stats.bytes_read,
    });
    json!({
        "levels": levels.collect::<Vec<_>>(), "dead_bytes": stats.dead_bytes,
        "value_files": stats.value_files, "values": stats.values, "value_bytes": stats.value_bytes,
        "value_garbage_bytes": stats.value_garbage_bytes,
        "memtable_bytes": stats.memtable_bytes, "immutable_memtable_bytes": stats.immutable_memtable_bytes,
        "immutable_memtables": stats.immutable_memtables, "memtable_bytes_max": stats.memtable_bytes_max,
        "cache_bytes": stats.cache_bytes, "cache_bytes_max": stats.cache_bytes_max,
        "reads": reads,
        "wal_segments": stats.wal_segments, "wal_start_lsn": stats.wal_start_lsn,
        "wal_flushed_lsn": stats.wal_flushed_lsn, "wal_durable_lsn": stats.wal_durable_lsn,
        "wal_written_lsn": stats.wal_written_lsn, "wal_syncs": stats.wal_syncs,
        "flushes": job(stats.flushes.as_ref()), "compactions": job(stats.compactions.as_ref()),
        "job_running": stats.job_running, "job_failure": stats.job_failure,
        "commits": stats.commits, "puts": stats.puts, "deletes": stats.deletes,
        "written_bytes": stats.written_bytes, "stalls": stats.stalls, "stalled_us": stats.stalled_us,
        "delays": stats.delays, "delayed_memtables_us": stats.delayed_memtables_us,
        "delayed_level0_us": stats.delayed_level0_us, "delayed_levels_us": stats.delayed_levels_us,
        "write_rate": stats.write_rate, "pressure": stats.pressure,
        "snapshots": stats.snapshots, "oldest_snapshot_seqno": stats.oldest_snapshot_seqno,
        "visible_seqno": stats.visible_seqno, "tenants": stats.tenants,
    })
}

//! The engine's statistics as the administration service tells them.

use std::time::Duration;

use strongroom::{JobStats, LevelStats, Pressure, Stats};
use strongroom_client::proto::admin as pb;

/// The same, on the wire.
pub(crate) fn response(stats: &Stats) -> pb::StatsResponse {
    pb::StatsResponse {
        levels: stats.levels.iter().map(level).collect(),
        dead_bytes: stats.dead_bytes,
        value_files: stats.values.files,
        values: stats.values.values,
        value_bytes: stats.values.bytes,
        value_garbage_bytes: stats.values.garbage_bytes,
        memtable_bytes: stats.memtables.active_bytes,
        immutable_memtable_bytes: stats.memtables.immutable_bytes,
        immutable_memtables: stats.memtables.immutables,
        memtable_bytes_max: stats.memtables.bytes_max,
        cache_bytes: stats.cache_bytes,
        cache_bytes_max: stats.cache_bytes_max,
        gets: stats.reads.gets,
        ranges: stats.reads.ranges,
        pieces_read: stats.reads.pieces_read,
        bytes_read: stats.reads.bytes_read,
        wal_segments: stats.wal.segments,
        wal_start_lsn: stats.wal.start.0,
        wal_flushed_lsn: stats.wal.flushed.0,
        wal_durable_lsn: stats.wal.durable.0,
        wal_written_lsn: stats.wal.written.0,
        wal_syncs: stats.wal.syncs,
        flushes: Some(job(&stats.flushes)),
        compactions: Some(job(&stats.compactions)),
        job_running: stats.job_running,
        job_failure: stats.job_failure.clone(),
        commits: stats.writes.commits,
        puts: stats.writes.puts,
        deletes: stats.writes.deletes,
        written_bytes: stats.writes.bytes,
        stalls: stats.writes.stalls,
        stalled_us: micros(stats.writes.stalled),
        delays: stats.writes.delays,
        delayed_memtables_us: micros(stats.writes.delayed.memtables),
        delayed_level0_us: micros(stats.writes.delayed.level0),
        delayed_levels_us: micros(stats.writes.delayed.levels),
        write_rate: stats.write_rate,
        pressure: stats.pressure.map(pressure),
        snapshots: stats.snapshots,
        oldest_snapshot_seqno: stats.oldest_snapshot.map(|seqno| seqno.0),
        visible_seqno: stats.visible.0,
        tenants: stats.tenants,
    }
}

fn level(level: &LevelStats) -> pb::LevelStats {
    pb::LevelStats {
        tables: level.tables,
        bytes: level.bytes,
        entries: level.entries,
        deletes: level.deletes,
    }
}

fn job(job: &JobStats) -> pb::JobStats {
    pb::JobStats {
        count: job.count,
        failed: job.failed,
        bytes_read: job.bytes_read,
        bytes_written: job.bytes_written,
        took_us: micros(job.time),
    }
}

fn pressure(why: Pressure) -> String {
    let name = match why {
        Pressure::Memtables => "memtables",
        Pressure::Level0 => "level0",
        Pressure::Levels => "levels",
        _ => "other",
    };
    name.to_owned()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

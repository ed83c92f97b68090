//! `status`: every node asked, one table, and a verdict.
//!
//! Healthy means: every node answers, exactly one of them is a primary that serves, every other one is a
//! standby that is connected. Asked about one node alone, that node must be one of the two.

use clap::Args;
use serde_json::{Value, json};
use strongroom_client::proto::admin::{Peer, Role, StatusResponse};

use super::connect::AdminArgs;
use super::data::epoch;
use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Format};

/// Flags.
#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    connection: AdminArgs,
}

/// What a node answered, or why it did not.
type Answer = (String, Result<StatusResponse, String>);

/// Prints the status. Exit 3 if it is not good.
pub async fn run(args: StatusArgs, format: Format) -> Outcome {
    let targets = args.connection.targets()?;
    let mut asked = Vec::new();
    for target in targets {
        asked.push(tokio::spawn(async move {
            let answer = target.ask().await;
            (target.address, answer.map(|(_, status)| status))
        }));
    }
    let mut answers: Vec<Answer> = Vec::new();
    let mut only_failure = None;
    for task in asked {
        let (address, answer) = task.await.map_err(|error| Failure::failed(error.to_string()))?;
        let answer = answer.map_err(|failure| {
            let message = failure.message.clone();
            only_failure = Some(failure);
            message
        });
        answers.push((address, answer));
    }
    if let ([_], Some(failure)) = (answers.as_slice(), only_failure) {
        return Err(failure);
    }
    let problems = problems(&answers);
    match format {
        Format::Json => output::json(json!({
            "healthy": problems.is_empty(), "problems": problems,
            "nodes": answers.iter().map(node_json).collect::<Vec<_>>(),
        })),
        Format::Table => {
            let rows = answers.iter().map(row);
            output::table(
                &[
                    "node",
                    "address",
                    "state",
                    "epoch",
                    "durable",
                    "applied",
                    "replicated",
                    "tenants",
                ],
                rows,
            );
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Unhealthy, problems.join("\n")))
    }
}

fn problems(answers: &[Answer]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut primaries = 0;
    for (address, answer) in answers {
        let status = match answer {
            Ok(status) => status,
            Err(why) => {
                problems.push(why.clone());
                continue;
            }
        };
        let following = status
            .peers
            .iter()
            .any(|peer| peer.role == Role::Primary as i32 && peer.connected);
        match Role::try_from(status.role) {
            Ok(Role::Primary) if status.serving => primaries += 1,
            Ok(Role::Standby) if following => {}
            _ => problems.push(format!("{address}: {}", status.summary)),
        }
        if let Some(why) = &status.read_only {
            problems.push(format!("{address}: read-only: {why}"));
        }
    }
    if answers.len() > 1 && primaries != 1 {
        problems.push(format!("{primaries} nodes serve as primary; it must be one"));
    }
    problems
}

fn row((address, answer): &Answer) -> Vec<String> {
    match answer {
        Err(why) => vec!["?".into(), address.clone(), why.clone()],
        Ok(status) => vec![
            status.node.clone(),
            address.clone(),
            status.summary.clone(),
            epoch(status.epoch),
            status.durable_lsn.to_string(),
            status.applied_lsn.to_string(),
            if status.role == Role::Primary as i32 {
                status.replicated_lsn.to_string()
            } else {
                "-".into()
            },
            status.tenants.to_string(),
        ],
    }
}

fn node_json((address, answer): &Answer) -> Value {
    match answer {
        Err(why) => json!({ "address": address, "reachable": false, "error": why }),
        Ok(status) => json!({
            "address": address, "reachable": true, "node": status.node, "version": status.version,
            "database_id": hex::encode(&status.database_id), "role": role(status.role),
            "serving": status.serving, "summary": status.summary,
            "epoch": status.epoch, "highest_epoch": status.highest_epoch, "fenced_by": status.fenced_by,
            "awaiting_acceptance": status.awaiting_acceptance, "read_only": status.read_only,
            "written_lsn": status.written_lsn, "durable_lsn": status.durable_lsn,
            "applied_lsn": status.applied_lsn, "replicated_lsn": status.replicated_lsn,
            "wal_start_lsn": status.wal_start_lsn, "visible_seqno": status.visible_seqno,
            "keystore_version": status.keystore_version, "tenants": status.tenants,
            "table_bytes": status.table_bytes, "tables_per_level": status.tables_per_level,
            "uptime_ms": status.uptime_ms, "snapshots": status.snapshots,
            "peers": status.peers.iter().map(peer_json).collect::<Vec<_>>(),
        }),
    }
}

fn peer_json(peer: &Peer) -> Value {
    json!({
        "node": peer.node, "role": role(peer.role), "connected": peer.connected, "epoch": peer.epoch,
        "received_lsn": peer.received_lsn, "durable_lsn": peer.durable_lsn, "applied_lsn": peer.applied_lsn,
        "keystore_version": peer.keystore_version, "last_heard_ms": peer.last_heard_ms,
        "problem": peer.problem, "address": peer.address, "base_copy_bytes": peer.base_copy_bytes,
    })
}

fn role(role: i32) -> &'static str {
    match Role::try_from(role) {
        Ok(Role::Primary) => "primary",
        Ok(Role::Standby) => "standby",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(role: Role, serving: bool, following: bool) -> Answer {
        let peer = Peer {
            role: Role::Primary as i32,
            connected: following,
            ..Peer::default()
        };
        let peers = if role == Role::Standby {
            vec![peer]
        } else {
            Vec::new()
        };
        (
            "h:1".into(),
            Ok(StatusResponse {
                role: role as i32,
                serving,
                peers,
                ..StatusResponse::default()
            }),
        )
    }

    #[test]
    fn one_serving_primary_and_connected_standbys_are_healthy() {
        let primary = || node(Role::Primary, true, false);
        let standby = || node(Role::Standby, true, true);
        assert!(problems(&[primary()]).is_empty());
        assert!(problems(&[standby()]).is_empty());
        assert!(problems(&[primary(), standby()]).is_empty());
        assert_eq!(problems(&[primary(), primary()]).len(), 1);
        assert_eq!(problems(&[standby(), standby()]).len(), 1);
        assert_eq!(problems(&[primary(), node(Role::Standby, true, false)]).len(), 1);
        assert_eq!(
            problems(&[primary(), ("h:2".into(), Err("down".into()))]),
            ["down"]
        );
        assert_eq!(problems(&[node(Role::Primary, false, false)]).len(), 1);
    }
}

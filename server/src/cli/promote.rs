//! `promote`: makes a standby the primary, after saying exactly what may be lost.

use clap::Args;
use serde_json::json;
use strongroom_client::proto::admin::{PromoteRequest, PromoteResponse};

use super::connect::AdminArgs;
use super::data::epoch;
use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Format};

/// Flags.
#[derive(Args, Debug)]
pub struct PromoteArgs {
    /// Go ahead without asking
    #[arg(long)]
    yes: bool,
    /// Refuse unless this is the name of the primary it follows
    #[arg(long, value_name = "NAME")]
    expect_primary: Option<String>,
    /// Refuse if more bytes of log than this could be lost
    #[arg(long, value_name = "BYTES")]
    max_loss: Option<u64>,
    /// Say what would happen; change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: AdminArgs,
}

/// Promotes the one node named.
pub async fn run(args: PromoteArgs, format: Format) -> Outcome {
    let client = args.connection.one().await?;
    let request = |dry_run, expect_epoch| PromoteRequest {
        expect_primary: args.expect_primary.clone().unwrap_or_default(),
        expect_epoch,
        max_loss_bytes: args.max_loss,
        dry_run,
    };
    let plan = client.promote(request(true, None)).await?;
    if args.dry_run {
        print(&plan, format);
        return Ok(());
    }
    if format == Format::Table {
        for line in bound(&plan) {
            eprintln!("{line}");
        }
    }
    if !args.yes && !output::confirm("Promote this node?", "--yes")? {
        return Err(Failure::failed("not promoted"));
    }
    let done = client.promote(request(false, None)).await.map_err(|error| {
        let failure = Failure::from(error);
        match failure.exit {
            Exit::Unknown => Failure::new(
                Exit::Unknown,
                format!(
                    "{}\nIt may have been promoted: look with `strongroom status`.",
                    failure.message
                ),
            ),
            _ => failure,
        }
    })?;
    print(&done, format);
    Ok(())
}

/// What may be lost, as far as this node can know.
fn bound(plan: &PromoteResponse) -> Vec<String> {
    let name = if plan.primary.is_empty() {
        "unknown"
    } else {
        &plan.primary
    };
    let mut lines = vec![format!("Old primary: {name}.")];
    lines.push(match plan.last_heard_ms {
        Some(ms) => format!(
            "Loss: at most {} of its log as heard {} ago, and whatever it wrote since; nothing that was \
             acknowledged as replicated.",
            output::bytes(plan.loss_bytes),
            output::span(std::time::Duration::from_millis(ms))
        ),
        None => {
            "Loss: no bound is known, since this node has not heard from it; nothing that was acknowledged \
                 as replicated."
                .to_owned()
        }
    });
    if plan.primary_connected {
        lines.push(
            "It is ALIVE and connected: what it acknowledges from now on without the standby is lost.".into(),
        );
    }
    lines
}

fn print(response: &PromoteResponse, format: Format) {
    match format {
        Format::Json => output::json(json!({
            "promoted": !response.dry_run, "dry_run": response.dry_run, "epoch": response.epoch,
            "start_lsn": response.start_lsn, "loss_bytes": response.loss_bytes,
            "last_heard_ms": response.last_heard_ms, "primary_connected": response.primary_connected,
            "primary": response.primary, "took_ms": response.took_ms,
        })),
        Format::Table => {
            let (epoch, start) = (epoch(response.epoch), response.start_lsn);
            if response.dry_run {
                for line in bound(response) {
                    output::line(&line);
                }
                output::line(&format!(
                    "Would be primary in epoch {epoch} from position {start}. Nothing was changed."
                ));
            } else {
                let took = response.took_ms;
                output::line(&format!(
                    "Primary in epoch {epoch} from position {start}, after {took} ms."
                ));
            }
        }
    }
}

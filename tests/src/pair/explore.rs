//! Every short order of what happens to a pair: promotions, kills, power cuts, cut links, returns, writes and
//! deliveries, to a bounded depth. Two orders that lead to the same state are followed once.
//!
//! A world cannot be copied (engines are open), so each order is run from the beginning; all runs of one
//! order are the same run.

use std::collections::BTreeSet;

use super::net::NodeId;
use super::node::Checked;
use super::{Nature, World};

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// A client writes at `Replicated` wherever somebody serves.
    Write,
    /// An operator promotes a node.
    Promote(NodeId),
    /// A node is killed.
    Kill(NodeId),
    /// A node loses power, and what it had not synced.
    PowerCut(NodeId),
    /// A dead node starts.
    Return(NodeId),
    /// The link is cut in both directions.
    Cut,
    /// What the old primary says is lost, what it hears is not.
    CutOneWay,
    /// Links heal.
    Heal,
    /// A few messages and units of work.
    Little,
    /// Messages and work until little is left to say.
    Much,
}

/// All of them.
pub const ACTS: &[Act] = &[
    Act::Write,
    Act::Promote(0),
    Act::Promote(1),
    Act::Kill(0),
    Act::PowerCut(0),
    Act::PowerCut(1),
    Act::Return(0),
    Act::Return(1),
    Act::Cut,
    Act::CutOneWay,
    Act::Heal,
    Act::Little,
    Act::Much,
];

/// What was explored.
#[derive(Clone, Copy, Default, Debug)]
pub struct Explored {
    /// Orders that were run to their end and judged.
    pub orders: u64,
    /// Orders that began with something that could not happen there, or led where another one had.
    pub pruned: u64,
    /// Different states that were reached.
    pub states: u64,
}

fn world() -> Checked<World> {
    let nature = Nature {
        nodes: 2,
        steps: 0,
        strict: true,
        hostile: false,
        faults: 0,
        disk_faults: 0,
        operator: 0,
    };
    let mut world = World::new(7, nature);
    world.start_all()?;
    world.quiet(60)?;
    if !world.at_rest() {
        return Err(format!("the pair does not form: {}", world.describe()));
    }
    world.write_anywhere()?;
    Ok(world)
}

/// Runs one order. False if an act of it could not happen.
fn happen(world: &mut World, acts: &[Act]) -> Checked<bool> {
    for act in acts {
        if !world.act(*act)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Explores all orders of up to `depth` acts. `Err` names the order that fails.
pub fn explore(depth: usize) -> Result<Explored, String> {
    let mut explored = Explored::default();
    let mut seen = BTreeSet::new();
    let mut level: Vec<Vec<Act>> = vec![Vec::new()];
    for _ in 0..depth {
        let mut next = Vec::new();
        for order in level {
            for act in ACTS {
                let mut order = order.clone();
                order.push(*act);
                let failed = |what: String| format!("after {order:?}: {what}");
                let mut world = world()?;
                if !happen(&mut world, &order).map_err(|what| failed(world.failure(&what)))? {
                    explored.pruned += 1;
                    continue;
                }
                if !seen.insert(world.state()) {
                    explored.pruned += 1;
                    continue;
                }
                explored.orders += 1;
                let end = world.settle().and_then(|()| world.judge());
                end.map_err(|what| failed(world.failure(&what)))?;
                next.push(order);
            }
        }
        level = next;
    }
    explored.states = seen.len() as u64;
    Ok(explored)
}

/// `sim pair-explore [DEPTH]`: prints what was explored, or the order that fails.
pub fn command(words: &[String]) -> Result<(), String> {
    let depth = words.first().map_or(Ok(3), |word| word.parse());
    let explored = explore(depth.map_err(|e| format!("DEPTH: {e}"))?)?;
    println!("{explored:?}");
    Ok(())
}

//! The replication simulation: pairs and trios of real engines on simulated machines, driven by the
//! replication crate's own core, in one thread, as one seed decides.
//!
//! ```text
//! world    scheduler and network; clients, chaos (faults, operators), judge (what must be true)
//! node     one node: its life, its steps; roles: serving, following, promotion, fencing
//! follow, seed, serve   its work as a standby, an empty standby, a primary
//! machine  disk, key provider, clock of its own rate
//! net      connections: cut one way, broken, half open; hostile: repeated and exchanged messages
//! mortal   values that expire, retentions, quotas, range deletes: what clients do with them, what must be left
//! ledger   the oracle: reigns, writes, acknowledgements, what each path must hold
//! explore  every short order of promotions, crashes, cuts and returns
//! planted  each planted bug must be found
//! ```
//!
//! No socket, no thread, no clock of the real machine. What a node decides is `core`'s; what is simulated
//! is the driver around it (`sender`, `receiver`, `supervisor`), whose real form the crate's own pair tests
//! run over TLS.

mod chaos;
mod clients;
pub mod explore;
mod follow;
mod judge;
mod ledger;
mod machine;
mod mortal;
mod net;
mod node;
pub mod planted;
mod roles;
mod seed;
mod serve;
mod world;

pub use world::{Nature, World};

use crate::layers::{Layer, Outcome, Profile, Request};

/// For the list of layers.
pub const LAYER: Layer = Layer {
    name: "pair",
    profiles: &[
        Profile {
            name: "pair",
            ci_fixed: 600,
            ci_fresh: 300,
            soak_weight: 2,
        },
        Profile {
            name: "pair-strict",
            ci_fixed: 400,
            ci_fresh: 200,
            soak_weight: 2,
        },
        Profile {
            name: "pair-hostile",
            ci_fixed: 200,
            ci_fresh: 100,
            soak_weight: 1,
        },
        Profile {
            name: "trio",
            ci_fixed: 200,
            ci_fresh: 100,
            soak_weight: 1,
        },
    ],
    run: of_seed,
    replay: None,
    deterministic: true,
};

/// What a profile is like.
pub fn nature(profile: &str) -> Nature {
    let pair = Nature {
        nodes: 2,
        steps: 900,
        strict: false,
        hostile: false,
        faults: 20,
        disk_faults: 0,
        operator: 8,
    };
    match profile {
        "pair-strict" => Nature { strict: true, ..pair },
        "pair-hostile" => Nature {
            hostile: true,
            ..pair
        },
        "trio" => Nature {
            nodes: 3,
            steps: 1200,
            operator: 10,
            ..pair
        },
        _ => Nature {
            disk_faults: 2,
            ..pair
        },
    }
}

fn of_seed(request: &Request) -> Outcome {
    run(request.profile, request.seed)
}

/// One run.
pub fn run(profile: &str, seed: u64) -> Outcome {
    let mut world = World::new(seed, nature(profile));
    let failure = world.run().err().map(|what| world.failure(&what));
    Outcome {
        trace: world.ctx.trace.hash(),
        counters: std::mem::take(&mut world.ctx.counters),
        failure,
    }
}

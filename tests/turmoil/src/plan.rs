//! Which faults come when, by seed.

use std::time::Duration;

use strongroom_tests::dice::Dice;

/// One thing that happens to the pair. Numbers are nodes: 0 is `a`, 1 is `b`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// Nothing.
    Calm,
    /// No message passes.
    Cut,
    /// None passes from this node to the other.
    CutFrom(usize),
    /// Messages wait until the end of the phase, and then pass all at once.
    Hold,
    /// Messages take up to this many milliseconds.
    Slow(u64),
    /// The node dies, and starts again at the end of the phase.
    Crash(usize),
    /// The node dies, and starts again at once.
    Bounce(usize),
    /// The node is shut down in order, and starts again.
    Restart(usize),
    /// The standby is promoted while the primary is cut off.
    FailoverWhileCut,
    /// The standby is promoted after the primary died.
    FailoverAfterCrash,
    /// The standby is promoted while all is well.
    Handover,
}

impl Fault {
    /// Without its numbers, for counting.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Calm => "calm",
            Fault::Cut => "cut",
            Fault::CutFrom(_) => "cut one way",
            Fault::Hold => "hold",
            Fault::Slow(_) => "slow",
            Fault::Crash(_) => "crash",
            Fault::Bounce(_) => "bounce",
            Fault::Restart(_) => "restart",
            Fault::FailoverWhileCut => "failover while cut",
            Fault::FailoverAfterCrash => "failover after a crash",
            Fault::Handover => "handover",
        }
    }
}

/// A fault, how long it lasts, and how long it is calm afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// What.
    pub fault: Fault,
    /// How long.
    pub lasts: Duration,
    /// And then.
    pub calm: Duration,
}

/// The phases of a run, and what its network is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In order.
    pub phases: Vec<Phase>,
    /// Latency of a message without faults, at most.
    pub latency: Duration,
    /// Values up to this long are written.
    pub value_bytes: u64,
}

impl Plan {
    /// The plan of `seed`.
    pub fn of(seed: u64) -> Plan {
        let mut dice = Dice::new(seed);
        let phases = 3 + dice.below(4);
        Plan {
            phases: (0..phases).map(|_| phase(&mut dice)).collect(),
            latency: Duration::from_millis(*dice.pick(&[1, 2, 5, 20])),
            value_bytes: *dice.pick(&[100, 2_000, 20_000, 100_000]),
        }
    }
}

fn phase(dice: &mut Dice) -> Phase {
    let node = dice.below(2) as usize;
    let fault = match dice.below(14) {
        0 => Fault::Calm,
        1 | 2 => Fault::Cut,
        3 | 4 => Fault::CutFrom(node),
        5 => Fault::Hold,
        6 => Fault::Slow(50 + dice.below(400)),
        7 => Fault::Crash(node),
        8 => Fault::Bounce(node),
        9 => Fault::Restart(node),
        10 | 11 => Fault::FailoverWhileCut,
        12 => Fault::FailoverAfterCrash,
        _ => Fault::Handover,
    };
    Phase {
        fault,
        lasts: Duration::from_millis(100 + dice.below(5_000)),
        calm: Duration::from_millis(dice.below(3_000)),
    }
}

//! Crashes inside recovery, three deep: the power fails at operation i of the recovery, at operation j of
//! the recovery of that, and at operation k of the recovery of that.
//!
//! Inside a recovery that is descended into every operation is tried, until the part has as many points as
//! it may have. Which ones are descended into is sampled ([`Scope::nested`]): the whole product has thousands
//! of millions of points. The part `recovery, three deep` samples none of the three recoveries of one torn
//! log, and ends at its own, larger number of points.

use strongroom::io::sim::{CrashMode, SimFs};

use super::{Depth, Machine, NESTED_POINTS, Report, Scope, caught, images, moments};
use crate::layers::counted;

/// From the moments of the scenario.
pub(super) fn of_moments(report: &mut Report, scope: &Scope, prepared: &dyn Machine) {
    let mut machine = prepared.copier()(&prepared.fs().fork());
    let (moments, result) = moments(&mut machine, |m| {
        caught(|| m.run().map_err(|e| format!("fails undisturbed: {e:?}")))
    });
    if let Err(why) = result {
        return report.failed("undisturbed", &why);
    }
    machine.kill();
    let every = (scope.nested[0].max(1)) as usize;
    let first = scope.seed as usize % every;
    for (n, (label, moment)) in moments.iter().enumerate().skip(first).step_by(every) {
        let random = (CrashMode::KeepRandom, scope.seed + n as u64);
        for (mode, seed) in [(CrashMode::DropAll, 0), random] {
            let image = moment.fs().crashed_image(mode, seed);
            let what = format!("{label}, {mode:?} with seed {seed}");
            descend(report, scope, moment.as_ref(), &image, &what, 1);
            if report.is_over() || is_enough(report, scope) {
                return;
            }
        }
    }
}

fn is_enough(report: &Report, scope: &Scope) -> bool {
    report.counters.get(NESTED_POINTS) >= scope.nested_max
}

/// From the disk as prepared: the scenario is a recovery itself.
pub(super) fn of_recovery(report: &mut Report, scope: &Scope, prepared: &dyn Machine) {
    let image = prepared.fs().crashed_image(CrashMode::DropAll, 0);
    descend(report, scope, prepared, &image, "as prepared", 1);
}

/// Recovers `image`, and tries every operation of that as the moment of another crash.
fn descend(
    report: &mut Report,
    scope: &Scope,
    machine: &dyn Machine,
    image: &SimFs,
    what: &str,
    level: usize,
) {
    if !report.is_new(image, machine.stamp()) {
        return;
    }
    let point = if level == 1 {
        counted::CRASH_POINTS
    } else {
        NESTED_POINTS
    };
    report.counters.add(point, 1);
    let mut left = machine.copier()(image);
    let (moments, result) = moments(&mut left, |m| caught(|| m.examine(Depth::Open)));
    left.kill();
    if let Err(why) = result {
        return report.failed(what, &why);
    }
    let every = scope.nested.get(level).copied().unwrap_or(1).max(1);
    for (n, (label, moment)) in moments.iter().enumerate() {
        let what = format!("{what}; during recovery {level}, {label}");
        // Which moments lead deeper: another choice for every way that leads here.
        let deeper = level < 3 && (n as u64 + report.points()).is_multiple_of(every);
        for (mode, image) in images(moment.fs(), scope, 1) {
            let what = format!("{what}, {mode}");
            match deeper {
                true => descend(report, scope, moment.as_ref(), &image, &what, level + 1),
                false => report.examine(moment.as_ref(), &image, &what, NESTED_POINTS, scope),
            }
            if report.is_over() || is_enough(report, scope) {
                return;
            }
        }
    }
}

//! The power fails before each operation, and the machine goes off under the engine at each operation.

use strongroom::io::sim::SimFs;

use super::{Machine, Report, SCENARIO_OPERATIONS, Scope, caught, images, moments};
use crate::layers::counted;
use crate::world::is_failure_of_the_machine;

/// Runs once, undisturbed but for what `arrange` does to the disk, and examines every disk that may be left
/// of every moment of it.
pub(super) fn power_failures(
    report: &mut Report,
    scope: &Scope,
    prepared: &dyn Machine,
    arrange: &dyn Fn(&SimFs),
) {
    let mut machine = prepared.copier()(&prepared.fs().fork());
    arrange(machine.fs());
    let before = machine.fs().ops();
    let (moments, result) = moments(&mut machine, |m| {
        caught(|| m.run().map_err(|e| format!("fails undisturbed: {e:?}")))
    });
    let operations = machine.fs().ops() - before;
    report.counters.add(SCENARIO_OPERATIONS, operations);
    if let Err(why) = result {
        return report.failed("undisturbed", &why);
    }
    machine.kill();
    let killed = machine.copier()(&machine.fs().fork());
    let moments = moments
        .into_iter()
        .chain([("after dropping the engine".to_string(), killed)]);
    for (label, moment) in moments {
        for (mode, image) in images(moment.fs(), scope, scope.random) {
            let what = format!("{label}, {mode}");
            report.examine(moment.as_ref(), &image, &what, counted::CRASH_POINTS, scope);
        }
        if report.is_over() {
            return;
        }
    }
}

/// For each operation a run in which it and all later calls fail; a write there is half done.
pub(super) fn machine_off(report: &mut Report, scope: &Scope, prepared: &dyn Machine) {
    let operations = count(prepared);
    for at in (1..=operations).step_by(scope.error_stride as usize) {
        let mut machine = prepared.copier()(&prepared.fs().fork());
        machine.fs().crash_at(machine.fs().ops() + at, true);
        let what = format!("machine off in the middle of operation {at} of the scenario");
        let result = caught(|| match machine.run() {
            // What is left to do at the end may fail without anybody to tell.
            Ok(()) => Ok(()),
            Err(e) if is_failure_of_the_machine(&e) => Ok(()),
            Err(e) => Err(format!("an error of the wrong kind: {e:?}")),
        });
        if let Err(why) = result {
            report.failed(&what, &why);
        }
        machine.kill();
        for (mode, image) in images(machine.fs(), scope, scope.random.min(4)) {
            let what = format!("{what}, {mode}");
            report.examine(machine.as_ref(), &image, &what, counted::CRASH_POINTS, scope);
        }
        if report.is_over() {
            return;
        }
    }
}

/// Operations of the scenario, undisturbed.
pub(super) fn count(prepared: &dyn Machine) -> u64 {
    let mut machine = prepared.copier()(&prepared.fs().fork());
    let before = machine.fs().ops();
    // What is wrong with it, the other loop tells.
    let _ = caught(|| machine.run().map_err(|e| format!("{e:?}")));
    machine.fs().ops() - before
}

//! Calls fail: each operation, reading call and opening call, once and for ever, with every errno that a
//! disk gives. The process goes on as docs/guarantees.md says; then it is killed or the power fails.

use strongroom::io::sim::{Calls, CrashMode, Fault, Times};

use super::crashes::count;
use super::{Machine, Report, Scope, caught};
use crate::layers::counted;
use crate::world::is_failure_of_the_machine;
use strongroom::ErrorKind;

/// A kind of failure, by the name of its errno.
#[derive(Clone, Copy)]
struct Errno {
    name: &'static str,
    calls: Calls,
    kind: std::io::ErrorKind,
}

impl Errno {
    /// Whether nothing but room is missing.
    fn is_full(self) -> bool {
        matches!(self.name, "ENOSPC" | "EDQUOT")
    }

    fn fault(self, at: u64, times: Times) -> Fault {
        Fault {
            calls: self.calls,
            kind: self.kind,
            half_write: self.is_full(),
            ..Fault::io_error(at, times)
        }
    }
}

const EIO: Errno = Errno {
    name: "EIO",
    calls: Calls::Changing,
    kind: std::io::ErrorKind::Other,
};

const ENOSPC: Errno = Errno {
    name: "ENOSPC",
    calls: Calls::Changing,
    kind: std::io::ErrorKind::StorageFull,
};

const EDQUOT: Errno = Errno {
    name: "EDQUOT",
    calls: Calls::Changing,
    kind: std::io::ErrorKind::QuotaExceeded,
};

const EROFS: Errno = Errno {
    name: "EROFS",
    calls: Calls::Changing,
    kind: std::io::ErrorKind::ReadOnlyFilesystem,
};

const EIO_READ: Errno = Errno {
    name: "EIO on a read",
    calls: Calls::Reading,
    kind: std::io::ErrorKind::Other,
};

const EMFILE: Errno = Errno {
    name: "EMFILE",
    calls: Calls::Opening,
    kind: std::io::ErrorKind::Other,
};

/// All changing operations.
pub(super) fn changing(report: &mut Report, scope: &Scope, prepared: &dyn Machine) {
    let tried: &[(Errno, Times)] = if scope.all_errors {
        &[
            (EIO, Times::Once),
            (EIO, Times::Forever),
            (ENOSPC, Times::Once),
            (ENOSPC, Times::Forever),
            (EDQUOT, Times::Once),
            (EDQUOT, Times::Forever),
            (EROFS, Times::Once),
            (EROFS, Times::Forever),
        ]
    } else {
        &[
            (EIO, Times::Once),
            (ENOSPC, Times::Once),
            (ENOSPC, Times::Forever),
        ]
    };
    let operations = count(prepared);
    for at in (1..=operations).step_by(scope.error_stride as usize) {
        for (errno, times) in tried {
            one(report, prepared, *errno, *times, at);
            if report.is_over() {
                return;
            }
        }
    }
}

/// Reading calls and calls that need a descriptor.
pub(super) fn reading(report: &mut Report, scope: &Scope, prepared: &dyn Machine) {
    let mut machine = prepared.copier()(&prepared.fs().fork());
    let (reads, opens) = (machine.fs().reads(), machine.fs().opens());
    if let Err(e) = machine.run() {
        return report.failed("undisturbed", &format!("{e:?}"));
    }
    let (reads, opens) = (machine.fs().reads() - reads, machine.fs().opens() - opens);
    drop(machine);
    for (errno, calls) in [(EIO_READ, reads), (EMFILE, opens)] {
        let stride = calls.div_ceil(scope.reads_max).max(1);
        for at in (1..=calls).step_by(stride as usize) {
            let times: &[Times] = match scope.all_errors {
                true => &[Times::Once, Times::Forever],
                false => &[Times::Once],
            };
            for times in times {
                one(report, prepared, errno, *times, at);
                if report.is_over() {
                    return;
                }
            }
        }
    }
}

/// One run in which the `at`-th call fails.
fn one(report: &mut Report, prepared: &dyn Machine, errno: Errno, times: Times, at: u64) {
    let mut machine = prepared.copier()(&prepared.fs().fork());
    let fs = machine.fs().clone();
    let before = match errno.calls {
        Calls::Changing => fs.ops(),
        Calls::Reading => fs.reads(),
        Calls::Opening => fs.opens(),
    };
    fs.fail(errno.fault(before + at, times));
    report.counters.add(counted::ERROR_POINTS, 1);
    report
        .counters
        .add(counted::fault(&format!("{}, {times:?}", errno.name)), 1);
    let what = format!(
        "call {at} ({:?}) fails with {}, {times:?}",
        errno.calls, errno.name
    );
    let result = caught(|| {
        // An error of another kind than `NoSpace` does not say that nothing was applied.
        let full = match machine.run() {
            Ok(()) => errno.is_full(),
            Err(e) if e.kind() == ErrorKind::NoSpace => errno.is_full(),
            Err(e) if is_failure_of_the_machine(&e) => false,
            Err(e) => return Err(format!("an error of the wrong kind: {e:?}")),
        };
        fs.clear_faults();
        machine.goes_on(full)
    });
    fs.clear_faults();
    machine.kill();
    if let Err(why) = result {
        return report.failed(&what, &why);
    }
    // A kill is followed by work and a crash: what a failed sync has left readable is lost then.
    let manners = [
        ("a kill", fs.fork(), super::Depth::Work(0)),
        (
            "a crash that drops all",
            fs.crashed_image(CrashMode::DropAll, 0),
            super::Depth::Work(at),
        ),
        (
            "a crash that keeps all",
            fs.crashed_image(CrashMode::KeepAll, 0),
            super::Depth::Look,
        ),
        (
            "a random crash",
            fs.crashed_image(CrashMode::KeepRandom, at),
            super::Depth::Look,
        ),
    ];
    for (manner, image, depth) in manners {
        if !report.is_new(&image, machine.stamp() ^ depth_stamp(depth)) {
            continue;
        }
        let mut left = machine.copier()(&image);
        if let Err(why) = caught(|| left.examine(depth)) {
            report.failed(&format!("{what}, then {manner}"), &why);
        }
    }
}

/// A kill asks for more than a look: it is no repetition of one.
fn depth_stamp(depth: super::Depth) -> u64 {
    match depth {
        super::Depth::Open | super::Depth::Look => 0,
        super::Depth::Work(_) => 1 << 63,
    }
}

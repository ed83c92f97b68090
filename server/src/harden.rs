//! What the process gives up so that keys stay in it.

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Turns core dumps off, and with them other users' ptrace and `/proc/self/mem`: memory holds keys. Reports what
/// could not be done; the process may go on.
pub fn process() -> Vec<String> {
    let mut failed = Vec::new();
    let limit = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Core, limit) {
        failed.push(format!("core dumps could not be turned off: {error}"));
    }
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        failed.push(format!("the process could not be made undumpable: {error}"));
    }
    failed
}

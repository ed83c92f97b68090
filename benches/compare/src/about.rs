//! What a record must say about where it came from.

use std::process::Command;

use crate::stores::ENGINES;

/// Machine, commit, versions, command: the head of every report.
pub fn head(about: &str) -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown");
    let versions: Vec<String> = ENGINES
        .iter()
        .map(|engine| match engine.name {
            "strongroom" => format!("strongroom at {}", git(&["describe", "--always", "--dirty"])),
            // The library's own version is in the metadata of the crate that builds it.
            "rocksdb" => format!("rocksdb {}", version("librocksdb-sys")),
            "lmdb" => format!("lmdb (heed {})", version("heed")),
            name => format!("{name} {}", version(name)),
        })
        .collect();
    let args: Vec<String> = std::env::args().skip(1).collect();
    format!(
        "{}; {cpu}, {cores} cores, load {load} at the start\n{}\ncargo run --release -- {}\n{about}",
        shell("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        versions.join(", "),
        args.join(" ")
    )
}

/// As the lock file has it.
fn version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let after = |text: &'static str, mark: &str| text.split_once(mark).map(|(_, rest)| rest);
    after(lock, &format!("name = \"{package}\"\n"))
        .and_then(|rest| after(rest, "version = \"")?.split_once('"'))
        .map_or("unknown", |(version, _)| version)
}

fn git(args: &[&str]) -> String {
    let dir = ["-C", env!("CARGO_MANIFEST_DIR")];
    shell("git", &[&dir[..], args].concat())
}

fn shell(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or("unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_come_from_the_lock_file() {
        assert!(super::version("hdrhistogram").starts_with('7'));
        assert_eq!(super::version("no such package"), "unknown");
    }
}

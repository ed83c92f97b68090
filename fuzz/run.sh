#!/usr/bin/env bash
# Builds every libFuzzer target with the compiler at hand (no nightly, no cargo-fuzz) and runs each for a while, one after
# another, from the samples in tests/fuzz/corpus: `fuzz/run.sh [seconds per target, 20] [target ...]`.
# Prints a line per target; what it finds is in target/libfuzzer/crashes, and the exit code is 1 then.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
shift || true
out=$PWD/target/libfuzzer
mkdir -p "$out/crashes"
sancov="-Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  sancov+=" -Cllvm-args=-sanitizer-coverage-$option"
done
host=$(rustc -vV | sed -n 's/^host: //p')
(cd fuzz && RUSTC_BOOTSTRAP=1 RUSTFLAGS="$sancov --cfg fuzzing" \
  cargo build --release --locked --target "$host" --target-dir "$out/build")
[ $# -gt 0 ] || set -- $(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//')
printf '%-20s %10s %8s %6s %6s %5s\n' target executions per-s edges new MiB
status=0
for target in "$@"; do
  mkdir -p "$out/found/$target"
  log=$out/$target.log
  "$out/build/$host/release/$target" "$out/found/$target" "tests/fuzz/corpus/$target" -seed=1 \
    -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 \
    -artifact_prefix="$out/crashes/$target-" > "$log" 2>&1 || { status=1; echo "$target: see $log"; }
  awk -v target="$target" '
    /number_of_executed_units/ { executed = $2 }
    /average_exec_per_sec/ { rate = $2 }
    /new_units_added/ { new = $2 }
    /peak_rss_mb/ { memory = $2 }
    match($0, /cov: [0-9]+/) { edges = substr($0, RSTART + 5, RLENGTH - 5) }
    END { printf "%-20s %10d %8d %6d %6d %5d\n", target, executed, rate, edges, new, memory }' "$log"
done
exit $status

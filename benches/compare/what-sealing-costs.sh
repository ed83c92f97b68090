#!/usr/bin/env bash
# What sealing costs, line by line: ours beside a build of ours without a cipher (engine/src/seal/null.rs), which
# no cargo feature can make. Arguments go to `lines`. The last column is sealed to unsealed.
set -euo pipefail
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-$PWD/target}
flags="--cfg strongroom_null_cipher --cfg strongroom_unsealed_for_benchmarks_only"
cargo build --release --locked --no-default-features
RUSTFLAGS="${RUSTFLAGS:-} $flags" cargo build --release --locked --no-default-features --target-dir "$target/unsealed"
exec "$target/release/strongroom-compare" lines --engines strongroom \
    --unsealed "$target/unsealed/release/strongroom-compare" "$@"

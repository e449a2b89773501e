#!/usr/bin/env bash
# Installs what the tests need, and runs all there is to run; the quickest first, and what fails
# ends it. The last line is "N passed, N failed".
#
#   tests/run.sh            everything
#   tests/run.sh clippy     only the steps whose name contains "clippy"

set -uo pipefail
cd "$(dirname "$0")/.."

only=${1:-}
passed=0
failed=0
begun=$(date +%s)
log=$(mktemp)
# Killed, it leaves nothing behind.
trap 'rm -rf "$log"' EXIT
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
# All is built once here; what the next build could take over costs time now.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}

summary() {
    echo
    echo "$passed passed, $failed failed"
}

# step NAME COMMAND…: quiet when it passes. Tests count one by one, all else as one.
step() {
    local name=$1 start status counted=0 kind count
    shift
    if [[ -n $only && $name != *"$only"* ]]; then
        return
    fi
    start=$(date +%s)
    printf '%-44s' "$name"
    # What hangs is a failure too.
    timeout --kill-after=10 1800 "$@" >"$log" 2>&1 </dev/null
    status=$?
    while read -r count kind; do
        counted=1
        case $kind in
            passed) passed=$((passed + count)) ;;
            failed) failed=$((failed + count)) ;;
        esac
    done < <(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; .*/\1 passed\n\2 failed/p' "$log")
    if ((status == 0)); then
        ((counted)) || passed=$((passed + 1))
        echo "ok, $(($(date +%s) - start)) s"
        # What a test left out it says so.
        grep '^left out:' "$log"
    else
        ((counted && failed)) || failed=$((failed + 1))
        echo "FAILED"
        cat "$log"
        summary
        exit 1
    fi
}

need() { # need PROGRAM INSTALL…
    command -v "$1" >/dev/null || step "install $1" "${@:2}"
}

# ── what is needed ──────────────────────────────────────────────────────────────────────────────

if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust 1.88 or later, see https://rustup.rs"
    exit 1
fi
cargo fmt --version >/dev/null 2>&1 || step "install rustfmt" rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || step "install clippy" rustup component add clippy

# What tests start: registries and grpc-go's and Kratos's programs, built once from pinned modules into a cache
# outside the checkout.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/callsign
mkdir -p "$cache"
lacking=()
for dir in tests/servers/*/; do
    name=$(basename "$dir")
    stamp=$(cat tests/servers/build.sh "$dir"* | sha256sum | cut -c1-16)
    if [[ (-z $only || $name == *"$only"*) && (! -e $cache/$name || $(cat "$cache/$name.stamp" 2>/dev/null) != "$stamp") ]]; then
        [[ -e $dir/go.mod ]] && tool=go || tool=mvn
        if ! command -v "$tool" >/dev/null; then
            echo "$tool is missing: tests/servers/build.sh needs it for $name. Go 1.26 or later: https://go.dev/dl; Maven: https://maven.apache.org"
            exit 1
        fi
        lacking+=("$name:$stamp")
    fi
done
# Go's modules come while Rust's tools compile. What does not is told when it is built.
for server in "${lacking[@]}"; do
    (cd "tests/servers/${server%:*}" && [[ -e go.mod ]] && timeout 600 go mod download)
done &>/dev/null &
modules=$!
# Optimised, or with what debuggers read, tools take longer to build than all their work here does.
tool() { # tool NAME
    need "$1" env CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug "$1"
}
tool cargo-deny
wait "$modules"
for server in "${lacking[@]}"; do
    step "build ${server%:*}" tests/servers/build.sh "${server%:*}" "$cache"
    echo "${server#*:}" >"$cache/${server%:*}.stamp"
done

# ── the quickest first ──────────────────────────────────────────────────────────────────────────

step "format" cargo fmt --all --check
step "dependencies: licences, bans, sources" cargo deny --log-level error --all-features check bans licenses sources

lint=(-D warnings)
step "clippy, default features" cargo clippy --quiet --all-targets -- "${lint[@]}"
step "clippy, all features" cargo clippy --quiet --all-targets --all-features -- "${lint[@]}"
step "clippy, no feature" cargo clippy --quiet --no-default-features -- "${lint[@]}"
for feature in $(sed -n '/^\[features\]/,/^\[dependencies\]/s/^\([a-z-]*\) = \[.*/\1/p' Cargo.toml); do
    step "clippy, $feature alone" cargo clippy --quiet --no-default-features --features "$feature" -- "${lint[@]}"
done
step "clippy, benches and models" cargo clippy --quiet -p callsign-bench -p callsign-model --all-targets -- "${lint[@]}"

# All in one go, on all processors.
step "tests build" cargo test --quiet --features full --lib --tests --no-run
step "test house" cargo test --quiet --features full --test house
step "models, in every order" cargo run --quiet -p callsign-model
step "test units" cargo test --quiet --features full --lib
for test in tests/*.rs; do
    name=$(basename "$test" .rs)
    case $name in
        house) continue ;;
        # These wait for registries more than they compute.
        consul | etcd | kubernetes | zookeeper) threads=4 ;;
        *) threads=$(nproc) ;;
    esac
    step "test $name" cargo test --quiet --features full --test "$name" -- --test-threads "$threads"
done
step "test tls, by AWS-LC" cargo test --quiet --features full,aws-lc --test tls
step "documentation's examples" cargo test --quiet --features full --doc
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features

step "examples build" cargo build --quiet --examples
for example in balance_channel tower_balance own_policy own_registry own_connector grpc_and_http quickstart; do
    step "example $example" cargo run --quiet --example "$example"
done
# No sanitizer: no code here is unsafe, and without one what it stands on builds in half the time.
# Coverage needs flags that only nightly compilers take, or one that is told to. What is found goes into a
# directory of its own; a crash leaves its input in fuzz/artifacts.
tool cargo-fuzz
found=$(mktemp -d)
trap 'rm -rf "$log" "$found"' EXIT
fuzz() { # fuzz NAME TARGET RUNS
    step "fuzz: $1" env RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none --target-dir "$PWD/target/fuzz" "$2" \
        "$found" "fuzz/corpus/$2" -- -runs="$3" -max_total_time=60 -rss_limit_mb=4096
}
fuzz "whatever a server says" server 4000
fuzz "whatever a registry holds" records 100000
need valgrind apt-get install -y -qq valgrind
step "benchmarks check their answers, and count" cargo bench --quiet -p callsign-bench -- --brief
step "package" cargo package --quiet --allow-dirty -p callsign

echo "$(($(date +%s) - begun)) s in all"
summary

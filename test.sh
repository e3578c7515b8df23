#!/usr/bin/env bash
# Runs the gates: everything that a change must pass, the quickest first.
#   ./test.sh          all gates
#   ./test.sh fast     all but those that drive a browser
#   ./test.sh long     those that take many minutes: long forms of some, and fuzzing
#   ./test.sh GATE…    these gates
#   ./test.sh list     their names
# What a gate needs and this machine lacks is installed first (apt-get as root, pip and npm into
# ~/.cache/fanfare and node_modules). What cannot be had fails its gate; only autobahn, which needs
# CPython 2.7, and the short form of cgroup, which needs a kernel's leave, say so and pass.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# To add a gate: write its function below, put its name here, and into BROWSER if it drives one.
GATES=(fmt text clippy test planted doc soak storm cgroup autobahn js python flaky deploy interop page)
BROWSER=(page)
LONG=(soak storm cgroup flaky fuzz timing)
# In which form those run that have two.
FORM=short

RUN=$(mktemp -d)
trap 'rm -rf "$RUN"' EXIT
source tests/tools/need.sh

gate_fmt() {
  need_component fmt rustfmt
  cargo fmt --check
}

# Spelling, and the shell scripts.
gate_text() {
  need_python
  local tools="${PYTHON%/*}"
  "$tools/typos"
  "$tools/shellcheck" --external-sources test.sh .ci/run tests/tools/*.sh
}

gate_clippy() {
  need_component clippy clippy
  cargo clippy --all-targets --locked -- -D warnings
  # The client alone, as other programs build it.
  cargo check --lib --locked --no-default-features
}

# Unit and documentation tests, tidy, supply, transcripts, integration, simulation.
gate_test() {
  need_rust
  cargo test --locked --no-fail-fast
}

# Bugs planted in the broker, each of which the simulator must find.
gate_planted() {
  need_rust
  cargo test --locked --features planted-bugs --test sim
}

gate_doc() {
  need_rust
  RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
}

# Endurance: clients of every kind come, go and stall, the checker judges what each of them hears, and
# the broker's memory, files and threads must stay what they were. SOAK_SECONDS long (45, or 1,800).
gate_soak() {
  [[ $FORM == short ]] || export SOAK_SECONDS=${SOAK_SECONDS:-1800}
  long_test soak::
}

# Everybody comes back after a restart: STORM_CLIENTS of them (500, or 15,000).
gate_storm() {
  if [[ $FORM == long ]]; then
    export STORM_CLIENTS=${STORM_CLIENTS:-15000}
    ulimit -Sn 16384 || fail 'the storm needs 16,384 open files: raise the hard limit (ulimit -Hn)'
  fi
  long_test storm::
}

# Subscribers that do not read, in a control group: CGROUP_READERS of them (300, or 5,000), in
# CGROUP_MIB (64, or 512). Takes root.
gate_cgroup() {
  if [[ $FORM == long ]]; then
    export CGROUP_READERS=${CGROUP_READERS:-5000} CGROUP_MIB=${CGROUP_MIB:-512}
  elif ! may_limit_memory; then
    say 'not run: no control group that limits memory can be made here'
    return
  fi
  long_test stalled::
}

# Whether this user may make a control group that limits memory, of version 1 or 2.
may_limit_memory() {
  local parent group
  for parent in /sys/fs/cgroup/memory /sys/fs/cgroup; do
    group=$parent/fanfare-try-$$
    mkdir "$group" 2>/dev/null || continue
    if [[ -e $group/memory.limit_in_bytes || -e $group/memory.max ]]; then
      rmdir "$group"
      return
    fi
    rmdir "$group"
  done
  return 1
}

# long_test MODULE: the tests of tests/long that a plain run leaves out, in their long form against an
# optimized broker.
long_test() {
  need_broker
  export FANFARE_BIN=$FANFARE FIGURES=$RUN/figures
  if [[ $FORM == long ]]; then
    cargo build --locked --profile ci --bin fanfare
    FANFARE_BIN=$(target_folder)/ci/fanfare
  fi
  cargo test --locked --test long "$1" -- --ignored --nocapture
}

# The cases of the Autobahn TestSuite against examples/echo.rs, which is our own `ws` module.
gate_autobahn() {
  need_rust
  need_command python3 python3
  if ! need_autobahn; then
    say 'not run: the Autobahn TestSuite needs CPython 2.7, and there is none (PYTHON27, pyenv)'
    return
  fi
  cargo build --locked --example echo
  local echo url='' messages=20
  "$(target_folder)/debug/examples/echo" >"$RUN/echo" &
  echo=$!
  while kill -0 "$echo" && ! url=$(grep '^ws:' "$RUN/echo"); do
    sleep 0.1
  done
  say "the suite's cases against $url, $messages messages in each of compression"
  timeout 900 "$AUTOBAHN_PYTHON" tests/autobahn/launch.py "$RUN" "$url" "$messages" \
    >"$RUN/autobahn.log" 2>&1 || tail -20 "$RUN/autobahn.log"
  kill "$echo"
  python3 tests/autobahn/judge.py "$RUN"
}

# The JavaScript client: its types and its tests.
gate_js() {
  npm_ci clients/js
  npm --prefix clients/js run types
  npm --prefix clients/js test
}

# The Python client: its types, its style, and its tests against a running broker.
gate_python() {
  need_broker
  need_command openssl openssl
  need_python_client
  (
    cd clients/python
    "$PYTHON" -m ruff format --check . ../../tests/flaky
    "$PYTHON" -m ruff check . ../../tests/flaky
    "$PYTHON" -m mypy
    MYPYPATH=. "$PYTHON" -m mypy --strict ../../tests/flaky
    FANFARE_BIN=$FANFARE "$PYTHON" -m unittest discover -t . -s tests
  )
}

# The clients behind a network that stalls, cuts and refuses, for FLAKY_SECONDS (20; long 120).
gate_flaky() {
  [[ $FORM == short ]] || export FLAKY_SECONDS=${FLAKY_SECONDS:-120}
  need_broker
  cargo build --locked --example flaky
  need_python_client
  npm_ci clients/js
  "$PYTHON" tests/flaky/test_judge.py
  FANFARE_BIN=$FANFARE "$PYTHON" tests/flaky/run.py "${FLAKY_SECONDS:-20}"
}

# The files of deploy/, judged by the programs that are to read them, and the bill of materials.
gate_deploy() {
  need_broker
  need_deploy
  (cd tests/deploy && PYTHONPATH=../interop "$PYTHON" -m unittest -v)
}

# Clients that nobody here wrote, a real Prometheus, and the proxies of deploy/, against a running
# broker.
gate_interop() {
  need_broker
  need_python
  need_command curl curl
  need_prometheus
  need_proxies
  npm_ci clients/js
  (cd tests/interop && "$PYTHON" -m unittest -v)
}

# The client against a running broker in Node; then the client and the dashboard in headless Chromium
# and Firefox, at the same time.
gate_page() {
  need_broker
  need_chromium
  need_firefox
  npm_ci clients/js
  npm_ci tests/page
  FANFARE_BIN=$FANFARE npm --prefix clients/js run test:broker
  FANFARE_BIN=$FANFARE npm --prefix tests/page test
}

# New inputs for every fuzz target, FUZZ_SECONDS each (300). What is found is kept in fuzz/found, and
# what breaks a promise in fuzz/artifacts.
gate_fuzz() {
  need_fuzz
  local target options
  # There is no unsafe code of ours for a sanitizer to watch, and without one it is faster.
  local fuzz=(cargo +nightly fuzz)
  "${fuzz[@]}" build --sanitizer none
  for target in fuzz/corpus/*; do
    target=${target##*/}
    mkdir -p "fuzz/found/$target"
    options=("-max_total_time=${FUZZ_SECONDS:-300}" -timeout=5 -rss_limit_mb=1024 -max_len=16384)
    if [[ -e fuzz/dictionaries/$target.dict ]]; then
      options+=("-dict=fuzz/dictionaries/$target.dict")
    fi
    say "$target"
    "${fuzz[@]}" run --sanitizer none "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
      "${options[@]}" -print_final_stats=1 -verbosity=0
  done
}

# Whether times tell how near a secret somebody is. A statistical test, on optimized code.
gate_timing() {
  need_rust
  cargo bench --locked --bench timing
}

main() {
  local gates=("${GATES[@]}") gate
  case "${1-}" in
    list)
      printf '%s\n' "${GATES[@]}" "${LONG[@]}" | awk '!seen[$0]++'
      return
      ;;
    long)
      gates=("${LONG[@]}")
      FORM=long
      ;;
    fast)
      gates=()
      for gate in "${GATES[@]}"; do
        is_in "$gate" "${BROWSER[@]}" || gates+=("$gate")
      done
      ;;
    ?*)
      gates=("$@")
      for gate in "${gates[@]}"; do
        is_in "$gate" "${GATES[@]}" "${LONG[@]}" ||
          fail "there is no gate $gate; there are: ${GATES[*]} ${LONG[*]}"
      done
      ;;
  esac
  for gate in "${gates[@]}"; do
    run "$gate"
  done
  summarize
}

# is_in WORD WORD…
is_in() {
  local word=$1 other
  shift
  for other in "$@"; do
    [[ $word == "$other" ]] && return
  done
  return 1
}

RESULTS=()
FAILED=0

# run GATE
run() {
  local gate=$1 started=$SECONDS status result=passed
  printf '\n=== %s\n' "$gate"
  # Not in an `if` or before `||`: there the shell would go on after a step that failed.
  set +e
  (
    set -e
    "gate_$gate"
  )
  status=$?
  set -e
  if ((status != 0)); then
    result=FAILED
    FAILED=$((FAILED + 1))
  fi
  RESULTS+=("$(printf '%-12s %-8s %5d s' "$gate" "$result" $((SECONDS - started)))")
}

summarize() {
  if [[ -e $RUN/figures ]]; then
    printf '\n=== figures\n'
    cat "$RUN/figures"
  fi
  printf '\n=== summary\n'
  printf '%s\n' "${RESULTS[@]}"
  if ((FAILED > 0)); then
    fail "$FAILED of ${#RESULTS[@]} gates failed"
  fi
  printf 'all %d gates passed\n' "${#RESULTS[@]}"
}

main "$@"

# shellcheck shell=bash
# What the gates need besides Rust, and how it gets onto a Debian-like machine.
# Sourced by test.sh, from the repository's root. Each `need_` function returns at once where the
# tool is there, installs it where it can, and otherwise fails with the name of what is missing.

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/fanfare"
export npm_config_cache="$CACHE/npm"
export PIP_CACHE_DIR="$CACHE/pip"

say() {
  printf -- '--- %s\n' "$*"
}

fail() {
  printf 'test.sh: %s\n' "$*" >&2
  exit 1
}

has() {
  command -v "$1" >/dev/null 2>&1
}

# apt_install PACKAGE…
apt_install() {
  has apt-get || fail "please install $*: there is no apt-get here to do it with"
  local as_root=(env DEBIAN_FRONTEND=noninteractive)
  if ((EUID != 0)); then
    if ! has sudo || ! sudo -n true 2>/dev/null; then
      fail "please install $*: it takes root"
    fi
    as_root=(sudo -n "${as_root[@]}")
  fi
  say "installing $*"
  if [[ ! -e $RUN/apt-index ]]; then
    "${as_root[@]}" apt-get update -qq || say "the package index could not be renewed"
    touch "$RUN/apt-index"
  fi
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends \
    -o DPkg::Lock::Timeout=300 "$@" >"$RUN/apt-install" 2>&1 || {
    cat "$RUN/apt-install" >&2
    fail "apt-get could not install $*"
  }
}

# need_command COMMAND PACKAGE…
need_command() {
  local command=$1
  shift
  has "$command" && return
  apt_install "$@"
  has "$command" || fail "installed $*, but there is still no $command"
}

# Cargo and a linker; the toolchain itself is pinned by rust-toolchain.toml.
need_rust() {
  if ! has cargo && [[ -x $HOME/.cargo/bin/cargo ]]; then
    export PATH="$HOME/.cargo/bin:$PATH"
  fi
  has cargo || fail "there is no cargo: install Rust as https://rustup.rs says"
  need_command cc gcc libc6-dev
  need_command make make
}

# need_component SUBCOMMAND COMPONENT
need_component() {
  need_rust
  cargo "$1" --version >/dev/null 2>&1 && return
  has rustup || fail "there is no cargo $1, and no rustup to add the component $2"
  say "adding the Rust component $2"
  rustup component add "$2"
}

# venv REQUIREMENTS: sets VENV to a virtual environment of Python that has what the file names.
venv() {
  need_command python3 python3
  # Named after the file's content: checkouts with other requirements keep their own.
  VENV="$CACHE/$(basename "$1" .txt)-$(cksum <"$1" | cut -d' ' -f1)"
  [[ -e $VENV/complete ]] && return
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
  say "installing $1 into $VENV"
  rm -rf "$VENV"
  python3 -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1" ||
    fail "pip could not install what $1 names"
  touch "$VENV/complete"
}

# Sets PYTHON to an interpreter that has what python.txt names; its tools are beside it.
need_python() {
  venv tests/tools/python.txt
  export PYTHON="$VENV/bin/python"
}

# Sets PYTHON like need_python, to one that has what clients/python is checked and tested with.
need_python_client() {
  venv tests/tools/python-client.txt
  export PYTHON="$VENV/bin/python"
}

# Node and npm. Distributions are often behind, so ours comes from node.txt.
need_node() {
  node_is_recent && return
  venv tests/tools/node.txt
  # Not the whole folder: its python3 must not hide the machine's.
  mkdir -p "$VENV/path"
  ln -sf "$VENV"/bin/{node,npm,npx} "$VENV/path/"
  export PATH="$VENV/path:$PATH"
  node_is_recent || fail "installed node, but still there is none of version 20 or later"
}

node_is_recent() {
  has npm && has node && node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)'
}

# npm_ci FOLDER
npm_ci() {
  need_node
  (cd "$1" && npm ci --prefer-offline --no-audit --no-fund --loglevel=error) ||
    fail "npm could not install the packages of $1"
}

# Sets CHROMIUM.
need_chromium() {
  local name
  for name in chromium chromium-browser google-chrome; do
    has "$name" && break
  done
  has "$name" || { need_command chromium chromium && name=chromium; }
  CHROMIUM=$(command -v "$name")
  export CHROMIUM
}

# Sets FIREFOX. Debian has the release with extended support.
need_firefox() {
  local name
  for name in firefox-esr firefox; do
    has "$name" && break
  done
  has "$name" || { need_command firefox-esr firefox-esr && name=firefox-esr; }
  FIREFOX=$(command -v "$name")
  export FIREFOX
}

need_prometheus() {
  need_command promtool prometheus
}

# Sets AUTOBAHN_PYTHON to a CPython 2.7 that has the Autobahn TestSuite; fails where there is none.
need_autobahn() {
  local requirements=tests/autobahn/requirements.txt python home
  for python in "${PYTHON27:-}" "$HOME"/.pyenv/versions/2.7.*/bin/python python2.7; do
    "$python" -c 'import sys, ssl; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null && break
    python=''
  done
  [[ -n $python ]] || return 1
  home="$CACHE/autobahn-$(cksum <"$requirements" | cut -d' ' -f1)"
  AUTOBAHN_PYTHON="$home/venv/bin/python"
  [[ -e $home/complete ]] && return
  say "installing $requirements into $home"
  rm -rf "$home"
  mkdir -p "$home"
  {
    # The last virtualenv that can make one of 2.7, which has no venv of its own.
    "$python" -m pip install --target "$home/virtualenv" virtualenv==20.15.1 &&
      PYTHONPATH="$home/virtualenv" "$python" -m virtualenv "$home/venv" &&
      "$AUTOBAHN_PYTHON" -m pip install -r "$requirements"
  } >"$RUN/autobahn-install" 2>&1 || {
    tail -20 "$RUN/autobahn-install" >&2
    fail "pip could not install what $requirements names"
  }
  # Masks and UTF-8 in C: with it the suite is ten times as fast, without it just as right.
  "$AUTOBAHN_PYTHON" -m pip install wsaccel==0.6.3 >"$RUN/autobahn-install" 2>&1 ||
    say "wsaccel could not be built: the suite will be slow"
  touch "$home/complete"
}

# A nightly compiler and cargo-fuzz.
need_fuzz() {
  need_rust
  has rustup || fail "there is no rustup, and with it no nightly compiler to fuzz with"
  cargo +nightly --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
  cargo fuzz --version >/dev/null 2>&1 && return
  say "installing cargo-fuzz"
  cargo +stable install --locked cargo-fuzz
}

# Where cargo puts what it builds.
target_folder() {
  realpath -m "${CARGO_TARGET_DIR:-target}"
}

# What judges deploy/, and whose tests run it. Sets PYTHON like need_python.
need_deploy() {
  venv tests/tools/deploy.txt
  export PYTHON="$VENV/bin/python"
  need_command systemd-analyze systemd
  need_command kubectl kubernetes-client
  need_prometheus
  need_proxies
}

need_proxies() {
  need_command nginx nginx-light
  need_command haproxy haproxy
  need_command caddy caddy
  need_command openssl openssl
}

# Sets FANFARE to a broker built from these sources.
need_broker() {
  need_rust
  # With the tests, whose dependencies' features differ: otherwise everything is compiled twice.
  cargo build --locked --bins --tests
  FANFARE=$(target_folder)/debug/fanfare
  export FANFARE
}

# What the programs of tests/parts share: checks, and the installation of what they need. They source it at their
# beginning; it changes to the top of the repository.
#
# A part is run by tests/full or by itself. It stops at its first failure, unless it says otherwise. tests/full counts
# the lines in RESULTS; a part that runs by itself has no such file.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Binaries are looked for where cargo puts them.
TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
WORK=$TARGET/full
RESULTS=${RESULTS:-/dev/null}
PYTHON=$WORK/venv/bin/python
PACKAGE_FILE=$WORK/alternator-dns.deb
mkdir -p "$WORK"

# --- Checks ---------------------------------------------------------------------------------------------------------

ok() { echo "ok - $1" | tee -a "$RESULTS"; }
not_ok() { echo "not ok - $1" | tee -a "$RESULTS"; }
skip() { echo "skipped - $1" | tee -a "$RESULTS"; }

# check SENTENCE COMMAND...: the command must succeed. Its output is shown only when it fails.
check() {
    local sentence=$1 output
    shift
    if output=$("$@" 2>&1); then
        ok "$sentence"
    else
        printf '%s\n' "$output"
        not_ok "$sentence"
        return 1
    fi
}

# until_ok SECONDS SENTENCE COMMAND...: the command must succeed within so many seconds.
until_ok() {
    local deadline=$((SECONDS + $1)) sentence=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            check "$sentence" "$@"
            return
        fi
        sleep 0.1
    done
    ok "$sentence"
}

equals() { [ "$1" = "$2" ] || { echo "expected: $2"; echo "got:      $1"; return 1; }; }
contains() { grep -qF -- "$2" <<<"$1" || { echo "expected to find: $2"; echo "in: $1"; return 1; }; }
fails() { ! "$@"; }

# count_checks NAME SECONDS COMMAND...: runs a program that prints its checks itself, and adds them to the results.
count_checks() {
    local output=$WORK/$1.out seconds=$2 status=0
    shift 2
    timeout --kill-after=5 "$seconds" "$@" </dev/null | tee "$output" || status=$?
    grep -E '^(ok|not ok|skipped)' "$output" >>"$RESULTS" || true
    return "$status"
}

# --- What a part needs ----------------------------------------------------------------------------------------------

# Whether a part can run here. If not, the reason is recorded.
needs_namespaces() {
    if [ "$(uname -s)" != Linux ] || [ "$(id -u)" != 0 ]; then
        skip "$1: it makes namespaces, for which it has to be root on Linux"
        return 1
    fi
}

needs_debian() {
    if ! command -v apt-get >/dev/null; then
        skip "$1: it needs the tools of Debian"
        return 1
    fi
}

# debian PACKAGE...: installs those that are missing.
debian() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || { echo "These Debian packages are needed: ${missing[*]}"; return 1; }
    echo "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}" >"$WORK/apt.log" 2>&1 ||
        { tail -n 20 "$WORK/apt.log"; return 1; }
}

# without_services COMMAND...: Debian starts a service as soon as it is installed. DNS servers would take port 53 of
# this machine; this keeps them from starting.
without_services() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [ "$(id -u)" != 0 ] || [ -e "$policy" ]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    "$@" || status=$?
    rm -f "$policy"
    return "$status"
}

# python: a virtual environment, $PYTHON, with the packages of requirements.txt.
python() {
    debian python3-venv
    local wanted=tests/real_clients/requirements.txt
    if ! cmp -s "$wanted" "$WORK/venv/requirements.txt"; then
        echo "installing the packages of $wanted"
        rm -rf "$WORK/venv"
        # Debian's own Python, because its venv is installed; another python3 in the path may lack it.
        /usr/bin/python3 -m venv "$WORK/venv"
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$wanted"
        cp "$wanted" "$WORK/venv/requirements.txt"
    fi
}

# cargo_tool NAME VERSION: installs a cargo package below target, in exactly this version.
cargo_tool() {
    local installed
    installed=$("$WORK/tools/bin/$1" --version 2>/dev/null || true)
    if [ "${installed##* }" != "$2" ]; then
        echo "installing $1 $2"
        # Each runs for seconds, and is built anew on each fresh machine: unoptimized, that takes a third of the time.
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 CARGO_PROFILE_RELEASE_LTO=off \
            CARGO_TARGET_DIR=$WORK/build cargo install --quiet --locked --root "$WORK/tools" "$1" --version "$2"
        rm -rf "$WORK/build"
    fi
}

# The binary under test.
binary() {
    local candidate newest=
    if [ -n "${ALTERNATOR_DNS:-}" ]; then
        realpath "$ALTERNATOR_DNS"
        return
    fi
    for candidate in "$TARGET"/{release,debug}/alternator-dns; do
        if [ -x "$candidate" ] && { [ -z "$newest" ] || [ "$candidate" -nt "$newest" ]; }; then newest=$candidate; fi
    done
    [ -n "$newest" ] || { echo "There is no binary yet; run: cargo build" >&2; return 1; }
    echo "$newest"
}

# empty_directory NAME: a directory below target, without what an earlier run left there.
empty_directory() {
    rm -rf "${WORK:?}/$1"
    mkdir -p "$WORK/$1"
    echo "$WORK/$1"
}

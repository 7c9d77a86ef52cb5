# What the scripts share. Sourced, never run.
# shellcheck shell=bash
# shellcheck disable=SC2034  # used by those that source this

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# What is installed for this project but is not the system's: Python, Java and Node clients, cargo tools.
CACHE=${ROBUSTMQ_CACHE:-$HOME/.cache/robustmq}
VENV=$CACHE/venv
JARS=$CACHE/kafka-java
NODE_CLIENTS=$CACHE/node-clients
TOOLS=$CACHE/cargo-tools
export PATH="$TOOLS/bin:$PATH"

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    BOLD=$(printf '\033[1m') RED=$(printf '\033[31m') GREEN=$(printf '\033[32m') PLAIN=$(printf '\033[0m')
else
    BOLD='' RED='' GREEN='' PLAIN=''
fi

# step TEXT: says what starts now.
step() { printf '%s==> %s%s\n' "$BOLD" "$*" "$PLAIN" >&2; }
note() { printf '    %s\n' "$*" >&2; }
fail() {
    printf '%s%s%s\n' "$RED" "$*" "$PLAIN" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND...: runs it as root, with sudo where we are not root.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        fail "This needs root, and sudo is not here. Run as root: $*"
    fi
}

# apt_install PACKAGE...: installs those Debian packages that are missing.
apt_install() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    have apt-get || fail "Missing: ${missing[*]} (Debian names). Install them with this system's package manager and try again."
    step "Installing ${missing[*]}"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}")
    # Package lists may be missing (container images) or stale: refresh them only then.
    if ! as_root "${install[@]}" >"$CACHE/apt.log" 2>&1; then
        as_root apt-get update -qq >"$CACHE/apt.log" 2>&1 || true
        as_root "${install[@]}" >"$CACHE/apt.log" 2>&1 || {
            tail -n 20 "$CACHE/apt.log" >&2
            fail "apt-get could not install ${missing[*]}"
        }
    fi
}

# with_lock NAME COMMAND...: two runs at a time do not install the same thing twice.
with_lock() {
    local name=$1
    shift
    (
        flock 9
        "$@"
    ) 9>"$CACHE/$name.lock"
}

seconds_since() { echo $(($(date +%s) - $1)); }

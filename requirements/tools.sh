#!/bin/sh
# Tools that no wheel carries: promtool and prometheus, amtool and alertmanager, chromium, nginx, as Debian packages them.
# Quiet when they are there. Where apt is not, or may not be used, the tests that need a tool are skipped and say so
# (tests/observability/tools.py); ATP_REQUIRE_TOOLS=1 makes that a failure.
set -u

missing=""
command -v promtool >/dev/null || missing=" prometheus"
{ command -v amtool && command -v prometheus-alertmanager || command -v alertmanager; } >/dev/null ||
    missing="$missing prometheus-alertmanager"
command -v chromium >/dev/null || missing="$missing chromium"
{ command -v nginx || dpkg -s nginx-light; } >/dev/null 2>&1 || missing="$missing nginx-light" # in /usr/sbin
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null || { echo "tools: no apt-get here, please install:$missing" >&2; exit 0; }

as_root=""
if [ "$(id -u)" != 0 ]; then
    # -n: never ask for a password in the middle of `make test`.
    sudo -n true 2>/dev/null || { echo "tools: neither root nor sudo, please install:$missing" >&2; exit 0; }
    as_root="sudo"
fi

# Only the programs are wanted. Both packages start their daemon on installation; Debian's policy-rc.d says no to that
# (101: forbidden by policy). One that is there already is the machine's own word, and stays.
policy=/usr/sbin/policy-rc.d
mine=""
restore() { [ -z "$mine" ] || $as_root rm -f "$policy"; }
trap restore EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$policy" ]; then
    mine=yes
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null && $as_root chmod 755 "$policy"
fi

echo "tools: installing$missing"
log=$(mktemp)
install_missing() {
    # RUNLEVEL=1: what asks for the runlevel instead of the policy is told "single user". Another apt may be at work.
    # shellcheck disable=SC2086  # the words of $missing are packages
    $as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=60 -qq -y --no-install-recommends install $missing >>"$log" 2>&1 </dev/null
}
# The lists of packages may be old or absent; then once more with new ones.
install_missing || {
    $as_root apt-get -o DPkg::Lock::Timeout=60 -qq update >>"$log" 2>&1
    install_missing
} || {
    echo "tools: apt-get could not install$missing; its last words:" >&2
    tail -n 5 "$log" >&2
}
rm -f "$log"
exit 0

#!/bin/sh
# Install the Debian packages named as arguments, where any is missing. Elsewhere than on Debian: say which they are.
set -eu
missing=
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "missing packages (install them, or their like, as root):$missing" >&2
    exit 0
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
apt-get -qq install -y --no-install-recommends $missing >/dev/null 2>&1 || {
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends $missing >/dev/null
}

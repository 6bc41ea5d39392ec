"""A Debian with the packages that tests ask for, made once and kept in pytest's cache; and this machine's settings of
package registries, which builds get as secrets."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SUITE = "bookworm"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def debian_tar(config: pytest.Config, *packages: str) -> Path:
    """The tar of a root file system with packages; skips where it cannot be made."""
    cache = Path(config.cache.mkdir("debian"))
    done = cache / f"{SUITE}-{'-'.join(packages)}.tar"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes run tests at once
        if done.exists():
            return done
        if shutil.which("mmdebstrap") is None:
            pytest.skip("needs the Debian package mmdebstrap")
        part = done.with_name(f".{done.name}")
        words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", SUITE, part]
        try:
            made = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
            if made.returncode != 0:
                pytest.skip(f"the Debian archive cannot be reached: {made.stderr[-300:]}")
            part.rename(done)
        finally:
            part.unlink(missing_ok=True)
    return done


def registry_secrets(place: Path) -> list[str]:
    """Options of ``build`` that hand on how pip and npm of this machine reach their registries."""
    pip = ["[global]"]
    for path in ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf"):
        text = _text(path).replace("[global]", "")
        pip += [line for line in text.splitlines() if not line.startswith("[")]
    # A directory of this machine means nothing in the container.
    pip += [
        f"{name[4:].lower().replace('_', '-')} = {value}"
        for name, value in os.environ.items()
        if name.startswith("PIP_") and not (value.startswith("/") and name != "PIP_CERT")
    ]
    seen = {line.partition("=")[0].strip(): line for line in pip}
    (place / "pip.conf").write_text("\n".join(seen.values()) + "\n")
    npm = "".join(_text(path).rstrip("\n") + "\n" for path in ("/etc/npmrc", "/usr/etc/npmrc", "~/.npmrc"))
    lines = [line for line in npm.splitlines() if not line.startswith(("prefix", "nodedir"))]
    (place / "npmrc").write_text("\n".join(lines) + "\n")
    found = [f"--secret=id=pip,src={place}/pip.conf", f"--secret=id=npm,src={place}/npmrc"]
    if CERTIFICATES.exists():
        found.append(f"--secret=id=ca,src={CERTIFICATES}")
    return found


def _text(path: str) -> str:
    try:
        return Path(path).expanduser().read_text()
    except OSError:
        return ""

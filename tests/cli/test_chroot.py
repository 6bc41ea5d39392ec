"""Containers of a command that runs in a chroot: theirs is the root of their mount namespace all the same."""

import os
import subprocess
import sys

import pytest
from boxes import needs_busybox

pytestmark = [pytest.mark.root, needs_busybox]

# The whole host once more, as another root: everything has the same path there.
SCRIPT = """
mount --make-rprivate / && mount --rbind / "$1" && exec chroot "$1" sh -euc '
layerfs="$1 -m layerfs"
$layerfs run -d --name one --runtime builtin box sh -c "echo of the container > /mark; sleep 100" > /dev/null
until $layerfs exec one cat /mark; do sleep 0.05; done
$layerfs exec one ls /
$layerfs rm -f one
' sh "$2"
"""


def test_exec_is_in_the_container(layerfs, box, tmp_path):
    place = tmp_path / "host"
    place.mkdir()
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", SCRIPT, "sh", place, sys.executable],
        capture_output=True,
        text=True,
        env=os.environ | layerfs.environment,
        timeout=60,
    )
    assert ran.returncode == 0, ran
    first, *names, last = ran.stdout.splitlines()
    assert (first, last) == ("of the container", "one")
    assert "mark" in names
    assert "boot" not in names

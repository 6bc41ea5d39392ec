"""PostgreSQL of Debian with a named volume: killed in the middle of its work, and started again with its data whole."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow]

# As the entrypoints of database images do: a new volume gets a new cluster, one that is there is used.
SERVER = """
cd /var/lib/postgresql
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
test -e data/PG_VERSION || initdb -D data >/dev/null
exec postgres -D data -c listen_addresses= -c unix_socket_directories=/tmp
"""
PSQL = ("exec", "-i", "db", "psql", "-h", "/tmp", "-qAt", "-v", "ON_ERROR_STOP=1", "postgres")


@pytest.fixture
def database(layerfs, runtime):
    layerfs("volume", "create", "pgdata")
    layerfs(
        "run", "-d", "--name", "db", "--runtime", runtime, "-u", "postgres", "-v", "pgdata:/var/lib/postgresql",
        "servers", "sh", "-c", SERVER,
    )  # fmt: skip
    wait_ready(layerfs)
    return layerfs


def wait_ready(layerfs, seconds=60):
    deadline = time.monotonic() + seconds
    while psql(layerfs, "select 1", check=False) != "1":
        assert time.monotonic() < deadline, layerfs.process("logs", "db").stderr[-2000:]
        time.sleep(0.1)


def psql(layerfs, text, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "layerfs", *PSQL, "-c", text],
        env=layerfs.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


def kill_container(layerfs):
    layerfs("kill", "-s", "KILL", "db")


def kill_supervisor(layerfs):
    id = layerfs("ps", "-q", "--no-trunc").strip()
    status = json.loads((layerfs.place / "root/containers" / id / "status.json").read_text())
    pidfd = os.pidfd_open(status["supervisor"])
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


@pytest.mark.parametrize("kill", [kill_container, kill_supervisor])
def test_killed_and_restarted(database, kill):
    layerfs = database
    psql(layerfs, "create table t (n int primary key, filler text)")
    # A client commits one row after the other, and tells of each once the server has acknowledged it.
    client = subprocess.Popen(
        [sys.executable, "-m", "layerfs", *PSQL],
        env=layerfs.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    acknowledged = 0
    for number in range(1, 201):
        client.stdin.write(f"insert into t values ({number}, repeat('x', 1000)) returning n;\n")
        client.stdin.flush()
        acknowledged = int(client.stdout.readline())
    assert acknowledged == 200
    # The rest is on its way when the server is killed.
    client.stdin.write("".join(f"insert into t values ({n}, 'y') returning n;\n" for n in range(201, 2001)))
    client.stdin.flush()
    acknowledged = int(client.stdout.readline())
    kill(layerfs)
    rest, _ = client.communicate(timeout=60)
    acknowledged = max([acknowledged, *map(int, rest.split())])

    assert layerfs("wait", "db").strip() in ("137", "255")  # nobody saw the end where the supervisor was killed too
    assert layerfs("ps", "-q") == ""
    layerfs("start", "db")
    wait_ready(layerfs)
    count, least, most = map(int, psql(layerfs, "select count(*), min(n), max(n) from t").split("|"))
    assert (least, count) == (1, most)  # no hole
    assert most >= acknowledged
    assert psql(layerfs, "select count(*) from t where n <= 200 and length(filler) = 1000") == "200"
    assert psql(layerfs, "insert into t values (0, '') returning n") == "0"
    layerfs("stop", "-s", "INT", "db")
    assert layerfs("inspect", "-f", "{{.State.ExitCode}}", "db").strip() == "0"


def test_the_volume_outlives_the_container(database, runtime):
    layerfs = database
    psql(layerfs, "create table t as select generate_series(1, 1000) as n")
    layerfs("stop", "-s", "INT", "db")
    assert "C /var/lib" not in layerfs("diff", "db")  # the data is in the volume, and not in the container
    layerfs("rm", "-v", "db")
    layerfs(
        "run", "-d", "--name", "db", "--runtime", runtime, "-u", "postgres", "-v", "pgdata:/var/lib/postgresql",
        "servers", "sh", "-c", SERVER,
    )  # fmt: skip
    wait_ready(layerfs)
    assert psql(layerfs, "select sum(n) from t") == "500500"

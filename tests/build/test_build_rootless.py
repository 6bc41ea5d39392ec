"""Builds as an ordinary user: with one number, and with ranges in /etc/subuid and /etc/subgid."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from boxes import needs_busybox
from test_rootless_files import NOBODY, ranges, user  # noqa: F401

pytestmark = [pytest.mark.root, needs_busybox]

LONG = str(20_000_000 + os.getpid())
"""Seconds by which a process of this test is known from those of others that run at the same time."""

DOCKERFILE = """\
FROM box AS one
RUN echo built > /made; id -u; rm /data/seed
COPY a d /c/
WORKDIR /w
COPY --chmod=700 --chown=bob a b
RUN --mount=type=cache,target=/k echo 1 >> /k/x; cat /k/x > count
RUN --mount=target=/m cat /m/a > m
RUN --mount=type=tmpfs,target=/t touch /t/x
RUN --mount=type=secret,id=s cat /run/secrets/s > s
FROM box
COPY --from=one /w /w
RUN --mount=from=one,source=/made,target=/m cat /m > /n
RUN --mount=target=/m,rw touch /m/new && ls /m > /n2
RUN --network=none ls /sys/class/net > /n3; ls /data > /n4
CMD ["sh", "-c", "cat /w/* /n /n2 /n3 /n4"]
"""


@pytest.fixture
def context(user):  # noqa: F811
    place = user.place / "context"
    (place / "d").mkdir(parents=True)
    (place / "a").write_text("A\n")
    (place / "d/b").write_text("B\n")
    (place / "Dockerfile").write_text(DOCKERFILE)
    for path in (place, *place.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    return place


def test_a_whole_build(user, context):  # noqa: F811
    words = ["build", "--secret", f"id=s,src={context}/a", "-t", "out", str(context)]
    done = user.process(*words)
    assert b"RUN echo built > /made" in done.stderr
    assert user("run", "--rm", "out") == "A\n1\nA\nA\nbuilt\nDockerfile\na\nd\nnew\nlo\nseed\n"
    again = user.process(*words)
    assert (again.stdout, again.stderr.count(b"CACHED") >= 10) == (done.stdout, True)
    user("build", "-q", "-o", str(user.place / "out"), str(context), "--secret", f"id=s,src={context}/a")
    assert (user.place / "out/w/m").read_text() == "A\n"
    assert user("build", "-q", "-", data=b"FROM scratch\nLABEL a=b\n").startswith("sha256:")


def test_what_goes_wrong(user, context, ranges):  # noqa: F811
    (context / "Dockerfile").write_text("FROM box\nRUN echo seen; exit 42\n")
    failed = user.process("build", str(context), code=42).stderr.decode()
    assert "Dockerfile:2: RUN echo seen; exit 42: the command ended with exit code 42" in failed
    assert " seen" in failed
    (context / "Dockerfile").write_text("FROM box\nNONE\n")
    assert "Dockerfile:2: " in user.process("build", str(context), code=2).stderr.decode()
    (context / "Dockerfile").write_text("FROM box\nUSER bob\nRUN id -u > /tmp/o\n")
    if ranges:
        user("build", "-q", "-t", "bob", str(context))
        assert user("run", "--rm", "bob", "cat", "/tmp/o") == "1000\n"
    else:
        said = user.process("build", str(context), code=4).stderr.decode()
        assert "user 1000:1000: without privilege a container has root alone" in said
        assert "/etc/subuid" in said
    said = user.process("build", "--runtime", "runc", str(context), code=4).stderr.decode()
    assert "built-in launcher" in said


def test_cache_mounts_of_other_owners_can_be_removed(user, context, ranges):  # noqa: F811
    who = "bob" if ranges else "root"
    (context / "Dockerfile").write_text(
        "FROM box\nRUN --mount=type=cache,target=/k "
        f"mkdir /k/d && touch /k/d/f && chown -R {who} /k/d && chmod 700 /k/d\n"
    )
    user("build", "-q", str(context))
    assert user("builder", "prune", "-af").count("mount") <= 1
    assert user("builder", "ls", "-q") == ""
    assert not list((user.place / "root/cache/mounts").iterdir())


def test_nobody_reads_how_it_goes(user, context):  # noqa: F811
    (context / "Dockerfile").write_text(
        "FROM box\nRUN i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done\n"
    )
    process = subprocess.Popen(
        [*user.words, "build", str(context)], env=user.environment, cwd="/", stderr=subprocess.PIPE, stdout=-3
    )
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(30) != 0
    wait_for(lambda: not list((user.place / "root/snapshots").iterdir()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed(user, context, number):  # noqa: F811
    (context / "Dockerfile").write_text(f"FROM box\nRUN echo 1 > /a\nRUN sleep {LONG}\n")
    process = subprocess.Popen([*user.words, "build", str(context)], env=user.environment, cwd="/", stderr=-3)
    wait_for(sleeping)
    process.send_signal(number)
    assert process.wait(20) != 0
    wait_for(lambda: not sleeping())
    (context / "Dockerfile").write_text("FROM box\nRUN echo 1 > /a\n")
    assert b"CACHED" in user.process("build", str(context)).stderr
    wait_for(lambda: not list((user.place / "root/snapshots").iterdir()))
    assert not list((user.place / "run/build").iterdir())


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sleeping():
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\0%b\0" % LONG.encode():
                found.append(path)
        except OSError:
            continue
    return found

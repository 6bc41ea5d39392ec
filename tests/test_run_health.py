"""What is kept and told of health checks, and of containers that ran out of memory."""

import time
from pathlib import Path

import pytest
from boxes import box_store, needs_busybox, options, run

pytestmark = [pytest.mark.root, needs_busybox]
MEMORY = Path("/sys/fs/cgroup/memory/tasks").exists() or Path("/sys/fs/cgroup/cgroup.controllers").exists()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with box_store(tmp_path_factory) as store:
        yield store


@pytest.fixture
def start(store, runtime):
    made = []
    often = "50ms" if runtime == "builtin" else "400ms"  # runc needs that long until there is a container to check

    def begin(*args, **flags):
        flags = {"runtime": runtime, "health_interval": often, **flags}
        made.append(store.containers.start(options(*(args or ("sleep", "60")), **flags)))
        return made[-1]

    yield begin
    for container in made:
        container.remove(force=True)


def health(container, done=lambda found: found["Log"], seconds=10):
    """State.Health of inspect, when it is as it should be."""
    until = time.monotonic() + seconds
    while not done(found := container.refresh().inspect()["State"]["Health"]):
        assert time.monotonic() < until, found
        time.sleep(0.02)
    return found


def actions(store, container):
    return [event.action for event in store.containers.events(since=0) if event.id == container.id]


def test_the_last_five_results(store, start):
    script = "n=$(cat /n 2>/dev/null || echo 0); echo $((n+1)) >/n; echo out $n; echo err >&2; [ $n -gt 3 ]"
    container = start(health_cmd=script, health_retries="2")
    found = health(container, lambda found: any("out 6" in check["Output"] for check in found["Log"]))
    said = [sorted(check["Output"].splitlines(), reverse=True) for check in found["Log"]]  # runc mixes the two
    numbers = [int(lines[0].removeprefix("out ")) for lines in said]
    assert len(numbers) == 5
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert said == [[f"out {number}", "err"] for number in numbers]
    assert [check["ExitCode"] for check in found["Log"]] == [0 if number > 3 else 1 for number in numbers]
    assert all(check["Start"] < check["End"] for check in found["Log"])
    assert (found["Status"], found["FailingStreak"]) == ("healthy", 0)
    told = [action for action in actions(store, container) if action.startswith("health_status")]
    assert told == ["health_status: unhealthy", "health_status: healthy"]


def test_events_tell_of_a_container_by_its_name_now(store, start):
    container = start(name="before", health_cmd="test -e /ok", health_retries="1", label=['kind="x"'])
    health(container, lambda found: found["Status"] == "unhealthy")
    container.rename("after")
    container.exec(["touch", "/ok"])
    health(container, lambda found: found["Status"] == "healthy")
    told = [
        event for event in store.containers.events(since=0) if "health" in event.action and event.id == container.id
    ]
    names = [(event.action.split()[1], event.attributes["name"]) for event in told]
    assert names == [("unhealthy", "before"), ("healthy", "after")]
    assert {event.attributes["kind"] for event in told} == {'"x"'}
    assert {(event.type, event.attributes["image"]) for event in told} == {("container", "box")}


def test_output_is_bounded_and_may_be_anything(start):
    long = health(start(health_cmd="dd if=/dev/zero bs=1k count=200 2>/dev/null | tr '\\0' x", health_timeout="5s"))
    assert long["Log"][0]["Output"] == "x" * 4096 + "..."
    assert long["Log"][0]["ExitCode"] == 0
    odd = health(start(health_cmd="printf 'a\\\\\"\\001\\303\\251\\377\\n'"))
    assert odd["Log"][0]["Output"] == 'a\\"\x01\u00e9\ufffd\n'


def test_a_check_that_takes_too_long(start):
    container = start(health_cmd="echo begun; sleep 50", health_timeout="100ms", health_retries="1")
    found = health(container, lambda found: found["Status"] == "unhealthy")
    assert found["Log"][0]["ExitCode"] == -1
    assert found["Log"][0]["Output"] == "Health check exceeded timeout (0.1 s): begun\n"


def test_a_check_that_cannot_run(start):
    found = health(start(health_cmd="exec /nothing-there", health_retries="1"))
    assert found["Log"][0]["ExitCode"] == 127
    assert "nothing-there" in found["Log"][0]["Output"]


def test_checks_follow_fast_while_it_starts(start):
    flags = {"health_interval": "50s", "health_start_period": "40s", "health_start_interval": "400ms"}
    found = health(start(health_cmd="false", health_retries="1", **flags), lambda found: len(found["Log"]) >= 3)
    assert (found["Status"], found["FailingStreak"]) == ("starting", 0)
    assert health(start(health_cmd="true", **flags))["Status"] == "healthy"


def test_what_is_there_after_the_end_and_a_new_start(start):
    container = start(health_cmd="echo one")
    health(container)
    container.stop(timeout=0)
    found = container.refresh().inspect()["State"]["Health"]
    assert (found["Status"], found["Log"][0]["Output"]) == ("unhealthy", "one\n")
    container.start()
    assert container.refresh().inspect()["State"]["Health"]["Status"] in ("starting", "healthy")


def test_none_is_checked(store, runtime, start):
    container = start(no_healthcheck=True, health_interval=None)
    assert "Health" not in container.inspect()["State"]


@pytest.mark.skipif(not MEMORY, reason="no memory group")
@pytest.mark.parametrize("how", ["foreground", "background"])
def test_out_of_memory(store, how):
    """runc and crun remove the group, which says it, before anybody can ask: there it is not known."""
    words = ("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    flags = {"runtime": "builtin", "memory": "16m", "memory_swap": "16m"}
    if how == "foreground":
        container = run(store, *words, **flags).container
    else:
        container = store.containers.start(options(*words, **flags))
        container.wait()
    state = container.refresh().inspect()["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    assert "oom" in actions(store, container)
    container.remove()
    other = run(store, "sh", "-c", "kill -9 $$", **(flags | {"init": True})).container
    assert other.refresh().inspect()["State"]["OOMKilled"] is False
    assert "oom" not in actions(store, other)
    other.remove()

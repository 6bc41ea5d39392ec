"""Every command that writes, with an error at each call that changes something: told in one line, nothing lost."""

import errno
from collections import Counter
from collections.abc import Iterator

import pytest
import tracer
from counting import points
from world import SCENARIOS, World, said

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(tracer.available()), reason=tracer.available() or "-"),
]
ERRORS = (errno.ENOSPC, errno.EIO, errno.EINTR, errno.EMFILE)
STRANGE = ("Traceback", "internal error", "Error:", "Exception")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("errors") / "w")
    yield world
    world.close()


def failed_at_each(
    world: World, name: str, counts: Counter[str], step: int, errors: tuple[tracer.Action, ...]
) -> list[str]:
    """Let every ``step``-th call fail, each in another way; what went wrong, one line each."""
    scenario = SCENARIOS[name]
    template = world.prepare(scenario)
    whole = world.command(scenario)
    assert whole.code == 0, (whole.code, whole.out, whole.err)
    problems = []
    numbers = range(step // 2, len(whole.calls), step)
    actions = {number: errors[number // step % len(errors)] for number in numbers}
    for number in points([at for at in numbers if actions[at] != tracer.SHORT or "write" in whole.calls[at].name]):
        action = actions[number]
        world.reset(template)
        result = world.command(scenario, lambda call, n=number, a=action: a if call.number == n else None)
        counts["short writes" if action == tracer.SHORT else "errors injected into system calls"] += 1
        kind = action if isinstance(action, str) else errno.errorcode[action or 0]
        call = result.calls[number] if number < len(result.calls) else None
        where = f"{name}, {kind} at call {number}: {call and call.name} {call and call.paths}: {result.code}"
        try:
            _check_told(result, action)
            world.check(scenario, result)
            again = world.again(scenario)
            assert again.code in scenario.again, f"again: {again.code} {again.err}"
        except Exception as exc:
            problems.append(f"{where}: {said(exc)}")
    return problems


def _check_told(result: tracer.Result, action: tracer.Action) -> None:
    assert result.code is not None, "it died"
    lines = result.err.splitlines()
    assert not any(word in result.err for word in STRANGE), result.err
    if result.code == 0:
        return
    assert lines, "it failed and said nothing"
    assert lines[-1].startswith("layerfs "), result.err
    assert result.code in (1, 3, 4, 5, 125), result.code
    assert action != tracer.SHORT, f"a short write is no error: {result.err}"


@pytest.mark.proof
@pytest.mark.parametrize("name", SCENARIOS)
def test_errors_at_each_call(world: World, name: str, counts: Counter[str]) -> None:
    assert failed_at_each(world, name, counts, 1, ERRORS) == []


@pytest.mark.proof
@pytest.mark.parametrize("name", SCENARIOS)
def test_short_writes(world: World, name: str, counts: Counter[str]) -> None:
    assert failed_at_each(world, name, counts, 1, (tracer.SHORT,)) == []


@pytest.mark.parametrize("name", ["import", "load", "rmi"])
def test_a_sample(world: World, name: str, counts: Counter[str]) -> None:
    assert failed_at_each(world, name, counts, 11, (*ERRORS, tracer.SHORT)) == []

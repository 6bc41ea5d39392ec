"""Every command that writes, killed at each of its calls that change something."""

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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("crash") / "w")
    yield world
    world.close()


def killed_at_each(world: World, name: str, counts: Counter[str], step: int, *, only_first: bool = False) -> list[str]:
    """Kill at every ``step``-th call; what went wrong, one line each."""
    scenario = SCENARIOS[name]
    template = world.prepare(scenario)
    whole = world.command(scenario)
    assert whole.code == 0, (whole.code, whole.out, whole.err)
    problems = []
    for number in points(range(step // 2, len(whole.calls), step)):
        world.reset(template)
        result = world.command(
            scenario, lambda call, number=number: tracer.KILL if call.number == number else None, only_first=only_first
        )
        if not result.killed:
            continue
        counts["points at which a command was killed"] += 1
        where = f"{name}, call {number}: {result.calls[number].name} {result.calls[number].paths}"
        try:
            world.check(scenario, result)
            again = world.again(scenario)
            assert again.code in scenario.again, f"again: {again.code} {again.err}"
            world.check(scenario, again)
            world.no_partial_archive()
        except Exception as exc:
            problems.append(f"{where}: {said(exc)}")
    return problems


@pytest.mark.proof
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_each_call(world: World, name: str, counts: Counter[str]) -> None:
    assert killed_at_each(world, name, counts, 1) == []


@pytest.mark.parametrize("name", ["import", "load", "prune", "commit"])
def test_a_sample(world: World, name: str, counts: Counter[str]) -> None:
    assert killed_at_each(world, name, counts, 13) == []

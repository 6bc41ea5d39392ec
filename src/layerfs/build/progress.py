"""Who is told how a build goes. The library never prints; the command shows it as lines or on a terminal."""

from typing import Protocol

__all__ = ["NO_BUILD_PROGRESS", "BuildProgress"]


class BuildProgress(Protocol):
    """Every method may be called from any thread. ``step`` counts from 1 over the whole build."""

    def begin(self, step: int, title: str) -> None:
        """A step begins: ``[stage 2/7] RUN …``."""
        ...

    def output(self, step: int, line: str) -> None:
        """A line that the step's command wrote."""
        ...

    def end(self, step: int, seconds: float, *, cached: bool) -> None:
        """The step is done, or its result was there."""
        ...

    def failed(self, step: int, reason: str, tail: list[str]) -> None:
        """The step failed; ``tail`` has the last lines that its command wrote."""
        ...

    def note(self, text: str) -> None:
        """A line for the user, as a warning."""
        ...


class _NoProgress:
    def begin(self, step: int, title: str) -> None:
        pass

    def output(self, step: int, line: str) -> None:
        pass

    def end(self, step: int, seconds: float, *, cached: bool) -> None:
        pass

    def failed(self, step: int, reason: str, tail: list[str]) -> None:
        pass

    def note(self, text: str) -> None:
        pass


NO_BUILD_PROGRESS: BuildProgress = _NoProgress()

"""When to try again: temporary failures, with growing pauses, as long as the registry itself asks for."""

import msgspec

from layerfs.errors import RegistryError

__all__ = ["TEMPORARY_STATUS", "Retry", "Throttled"]

TEMPORARY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class Throttled(RegistryError):
    """A temporary refusal that says when to come again, in ``seconds``."""

    def __init__(self, message: str, seconds: float, *, status: int, code: str | None, url: str | None) -> None:
        super().__init__(message, status=status, code=code, url=url, temporary=True)
        self.seconds = seconds


class Retry(msgspec.Struct, frozen=True):
    """At most ``attempts`` in a row; pauses of ``base`` seconds, doubled each time up to ``longest``.

    A registry that wants a pause above ``patience`` seconds is not waited for: the failure says how long it wants.
    """

    attempts: int = 6
    base: float = 0.25
    longest: float = 10.0
    patience: float = 60.0

    def pause(self, failure: RegistryError, attempt: int) -> float:
        """Seconds to wait before the next try; raises ``failure`` where there is to be none after ``attempt``."""
        if not failure.temporary or attempt >= self.attempts:
            raise failure
        import random  # nothing is tried again as a rule

        seconds: float = random.uniform(0.5, 1.0) * min(self.longest, self.base * 2 ** (attempt - 1))
        if isinstance(failure, Throttled):
            if failure.seconds > self.patience:
                failure.hint = f"the registry wants no request for {failure.seconds:.0f} s"
                raise failure
            seconds = max(seconds, failure.seconds)
        return seconds

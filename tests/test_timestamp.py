import pytest

from layerfs.imageconfig import timestamp


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (1700000000.25, "2023-11-14T22:13:20.25Z"),
        (1700000000.0, "2023-11-14T22:13:20Z"),
        (1700000010.5, "2023-11-14T22:13:30.5Z"),
    ],
)
def test_a_time_has_no_zeros_at_its_end(now: float, text: str) -> None:
    """What Go's tools write again must keep its bytes, or the image ID changes."""
    assert timestamp(now) == text

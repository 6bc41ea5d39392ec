"""Sizes, ages, times and filters in docker's words."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.cli import units
from layerfs.cli.filters import Filters, parse_until
from layerfs.errors import InvalidInputError

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"), (1, "1B"), (999, "999B"), (1000, "1kB"), (1234, "1.23kB"), (72_800_000, "72.8MB"),
        (999_999, "1MB"), (999_499, "999kB"), (1_000_000, "1MB"), (117_000_000, "117MB"), (1_500_000_000, "1.5GB"),
        (5 * 10**12, "5TB"), (2**63, "9.22EB"), (10**27, "1000YB"),
    ],
)  # fmt: skip
def test_sizes_have_three_digits_in_units_of_1000(count, text):
    assert units.size(count) == text


def test_sizes_with_more_digits_and_in_units_of_1024():
    assert units.size(1_234_567, 4) == "1.235MB"
    assert units.binary_size(8_000_000) == "7.629MiB"
    assert units.binary_size(1024) == "1KiB"
    assert units.binary_size(1023) == "1023B"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"), (0.9, "Less than a second"), (1, "1 second"), (1.9, "1 second"), (2, "2 seconds"),
        (59.9, "59 seconds"), (60, "About a minute"), (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"),
        (HOUR, "About an hour"), (1.4 * HOUR, "About an hour"), (1.5 * HOUR, "2 hours"), (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"), (13 * DAY, "13 days"), (14 * DAY, "2 weeks"), (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"), (700 * DAY, "23 months"), (730 * DAY, "2 years"),
    ],
)  # fmt: skip
def test_ages_in_words(seconds, text):
    assert units.duration(seconds) == text
    assert units.ago(1_000_000, 1_000_000 + seconds) == f"{text} ago"


def test_no_time_is_not_available():
    assert units.ago(None) == units.ago(0) == units.stamp(0) == "N/A"
    assert units.moment("0001-01-01T00:00:00Z") is units.moment("") is units.moment("tomorrow") is None


def test_moments_of_rfc_3339():
    assert units.moment("1970-01-02T00:00:00Z") == DAY
    assert units.moment("1970-01-02T01:00:00+01:00") == DAY
    assert units.moment("1970-01-01T00:00:01.5Z") == 1.5
    assert units.moment("1970-01-01T00:00:01.123456789Z") == pytest.approx(1.123456)


def test_stamp_is_local_time(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    units.time.tzset()
    assert units.stamp(DAY) == "1970-01-02 00:00:00 +0000 UTC"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0), ("512", 512), ("1k", 1024), ("512m", 512 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30),
        ("1 MB", 1 << 20), ("7b", 7),
    ],
)  # fmt: skip
def test_sizes_are_read_in_units_of_1024(text, count):
    assert units.parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("10s", 10), ("1h30m", 5400), ("1.5m", 90), ("500ms", 0.5), ("1m2s3ms", 62.003)]
)
def test_durations_are_read(text, seconds):
    assert units.parse_duration(text) == pytest.approx(seconds)


@given(st.text(max_size=12))
def test_nonsense_is_an_input_error(text):
    for read in (units.parse_bytes, units.parse_duration, parse_until):
        with suppress(InvalidInputError):
            assert read(text) >= 0 or read is parse_until


@given(st.integers(0, 2**70))
def test_a_size_is_right_to_three_digits(count):
    text = units.size(count)
    unit = next(unit for unit in ("kB", "MB", "GB", "TB", "PB", "EB", "ZB", "B") if text.endswith(unit))
    exponent = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB").index(unit)
    assert float(text.removesuffix(unit)) * 1000**exponent == pytest.approx(count, rel=0.0051)
    assert float(text.removesuffix(unit)) < 1000


def test_until_is_a_date_a_span_or_seconds():
    assert parse_until("1000") == 1000
    assert parse_until("1h", now=5000) == 1400
    assert parse_until("1970-01-02T00:00:00Z") == DAY
    assert parse_until("1970-01-02") == DAY


def test_filters_of_one_key_are_alternatives():
    filters = Filters(["status=running", "status=exited", "name=a"], ("status", "name", "id"))
    assert filters.accepts("status", "exited")
    assert not filters.accepts("status", "paused")
    assert filters.accepts("id", "anything")
    assert filters["name"] == ["a"]
    assert filters["id"] == []


def test_filters_of_labels():
    filters = Filters(["label=a", "label=b=2", "label!=c"], ("label", "label!"))
    assert filters.labels({"a": "1", "b": "2"})
    assert not filters.labels({"a": "1", "b": "3"})
    assert not filters.labels({"b": "2"})
    assert not filters.labels({"a": "1", "b": "2", "c": ""})


@pytest.mark.parametrize("word", ["nothing=1", "status", "", "label!=x"])
def test_unknown_filters_are_refused(word):
    with pytest.raises(InvalidInputError, match="filter"):
        Filters([word], ("status",))


def test_boolean_filters():
    assert Filters(["dangling=true"], ("dangling",)).flag("dangling") is True
    assert Filters(["dangling=0"], ("dangling",)).flag("dangling") is False
    assert Filters([], ("dangling",)).flag("dangling") is None
    with pytest.raises(InvalidInputError):
        Filters(["dangling=maybe"], ("dangling",)).flag("dangling")

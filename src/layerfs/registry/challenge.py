"""Headers that carry more than a word: WWW-Authenticate, Link, Warning, Retry-After, Range.

Sources: RFC 9110 (11.6.1, 10.2.3), RFC 8288, RFC 7234 5.5, distribution-spec ("Listing Tags", "Warnings").
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

__all__ = ["Challenge", "next_link", "parse_challenges", "parse_content_range", "parse_range_end", "retry_after"]
__all__ += ["warning_text"]

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}=*|[^",\s]+))\s*(?:,|$)'
_SCHEME = rf"[\s,]*({_TOKEN})(?:\s+|$|,)(?!=)"
_LINK = r'\s*<([^>]*)>((?:\s*;\s*[^,;"]+(?:"[^"]*")?)*)'
_WARNING = r'\s*299\s+\S+\s+"((?:[^"\\]|\\.)*)"'
_LIMIT = 16 << 10


class Challenge(msgspec.Struct, frozen=True):
    """One way to authenticate that a registry offers; ``scheme`` in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of all WWW-Authenticate headers of an answer; what cannot be read is left out."""
    found = []
    for header in headers:
        text = header[:_LIMIT]
        while (start := re.match(_SCHEME, text)) is not None:
            text = text[start.end() :]
            parameters: dict[str, str] = {}
            while (parameter := re.match(_PARAMETER, text)) is not None:
                quoted, plain = parameter[2], parameter[3]
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                parameters.setdefault(parameter[1].lower(), value)
                text = text[parameter.end() :]
            found.append(Challenge(start[1].lower(), parameters))
    return found


def next_link(header: str | None) -> str | None:
    """The target of ``rel=next`` in a Link header."""
    for target, attributes in re.findall(_LINK, (header or "")[:_LIMIT]):
        if re.search(r'rel\s*=\s*"?next"?', attributes):
            return str(target)
    return None


def warning_text(header: str) -> str | None:
    """The text of a ``299`` warning, fit for a terminal; None for other warnings."""
    match = re.match(_WARNING, header[:_LIMIT])
    if match is None:
        return None
    text = re.sub(r"\\(.)", r"\1", match[1])
    return "".join(c if c.isprintable() else "?" for c in text)[:500]


def retry_after(header: str | None) -> float | None:
    """Seconds to wait: a number or a date (RFC 9110, 10.2.3); None when there is none that can be read."""
    if header is None:
        return None
    if (seconds := re.fullmatch(r"\s*(\d{1,9})\s*", header, re.ASCII)) is not None:
        return float(seconds[1])
    try:
        from email.utils import parsedate_to_datetime  # seldom needed, and takes 5 ms to load

        when = parsedate_to_datetime(header)
    except (ValueError, TypeError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def parse_content_range(header: str | None) -> tuple[int, int, int | None] | None:
    """First byte, last byte and whole size (None: ``*``) of a Content-Range of a 206."""
    match = re.fullmatch(r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*", header or "", re.ASCII)
    if match is None:
        return None
    return int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])


def parse_range_end(header: str | None) -> int | None:
    """How many bytes an upload has: one more than the end of ``Range: 0-END``. 0-0 says an empty one."""
    match = re.fullmatch(r"\s*(?:bytes=)?0-(\d{1,18})\s*", header or "", re.ASCII)
    if match is None:
        return None
    # The field's registries say 0-0 for nothing; a session of exactly one byte does not occur in ours.
    return 0 if match[1] == "0" else int(match[1]) + 1

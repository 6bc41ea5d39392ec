"""JSON in columns: by msgspec, and by the standard library (which takes 1 ms to load) for what is no Unicode.

A name of a file in a message may have bytes that are no UTF-8, which Python keeps as lone surrogates.
"""

from typing import Any

import msgspec

__all__ = ["from_text", "to_text"]


def to_text(value: object) -> str:
    """A document as JSON; TypeError for what JSON has not."""
    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except UnicodeEncodeError:
        import json

        return json.dumps(value)


def _plain(value: object) -> str:
    if isinstance(value, str):  # a Digest
        return str(value)
    raise TypeError(f"{type(value).__name__} in a document")


def from_text(text: str | bytes) -> Any:
    """The document again; ValueError when it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        import json

        return json.loads(text)

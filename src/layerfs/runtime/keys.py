"""The keys that leave a container's terminal while the container goes on."""

from layerfs.errors import InvalidInputError

__all__ = ["DETACH_KEYS", "KeyFilter", "parse_keys"]

DETACH_KEYS = "ctrl-p,ctrl-q"
_DELETE = 0x7F


def parse_keys(text: str) -> bytes:
    """The bytes of docker's ``--detach-keys``: characters, ctrl-LETTER or DEL, with commas between; empty: the usual.

    Raises InvalidInputError.
    """
    keys = b""
    for word in (text or DETACH_KEYS).split(","):
        name = word.lower().removeprefix("ctrl-")
        if word == "DEL":
            keys += bytes([_DELETE])
        elif len(word) == 1 and word.isascii():
            keys += word.encode()
        elif word.lower().startswith("ctrl-") and len(name) == 1 and "@" <= name.upper() <= "_":
            keys += bytes([ord(name.upper()) & 0x1F])
        else:
            raise InvalidInputError(f"detach keys {text!r}: {word!r} is not a key, as ctrl-p or q")
    return keys


class KeyFilter:
    """Looks for a sequence of keys in what is typed; their beginning is held back until the next key is known."""

    def __init__(self, keys: bytes) -> None:
        """``keys``: empty, and nothing is looked for."""
        self._keys = keys
        self._held = b""

    def pass_on(self, data: bytes) -> tuple[bytes, bool]:
        """What of it is for the container, and whether all keys have been typed."""
        if not self._keys:
            return data, False
        data, self._held = self._held + data, b""
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        return data, False

"""``SyncAhead``: a large file reaches the disk while it is written."""

import os
import threading

__all__ = ["SyncAhead"]

_STEP = 32 << 20


class SyncAhead:
    """Syncs a file that grows, time and again, in a thread; so the sync at its end waits for the last piece alone.

    To begin to write pages back (``sync_file_range``) is not enough for that: where the disk has a cache, as a drive,
    a loop device and a virtual machine's have, all that is in it is waited for at the end.
    """

    def __init__(self, fd: int) -> None:
        """``fd`` must stay open until ``end`` or ``stop``."""
        self._fd = fd
        self._grown = 0
        self._wake = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def grow(self, size: int) -> None:
        """So many bytes more are in the file."""
        self._grown += size
        if self._grown < _STEP:
            return
        self._grown = 0
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
            self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        try:
            while self._wake.wait() and not self._ended:
                self._wake.clear()
                os.fdatasync(self._fd)
        except OSError as exc:
            self._error = exc

    def stop(self) -> None:
        """No thread is left; again is allowed."""
        self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def end(self) -> None:
        """The same, before the last sync. OSError where a sync has failed: the kernel tells that to one call alone."""
        self.stop()
        if self._error is not None:
            raise self._error

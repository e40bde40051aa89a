"""Where a syslog line ends on a TCP stream, and the count of what became of the lines. No I/O."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from deployments.intake.syslog import MAX_LINE

_COUNTED = re.compile(rb"([1-9][0-9]{0,6}) <")


@dataclass
class Counters:
    """What became of the traffic; the numbers only grow.

    Attributes:
        received: whole lines handed to ``on_line``.
        malformed: lines longer than allowed, and lines cut off by the end of their connection.
        dropped: datagrams given up because ``on_line`` was too slow; what the kernel drops is not seen here.
        refused: TCP connections over the limit, closed at once.
    """

    received: int = 0
    malformed: int = 0
    dropped: int = 0
    refused: int = 0


class Frames:
    """Cuts one TCP stream into lines: octet-counted or ended by a newline, told apart line by line (RFC 6587)."""

    def __init__(self, counters: Counters, max_line: int = MAX_LINE) -> None:
        self._counters = counters
        self._max_line = max_line
        self._buffer = bytearray()
        self._skip = 0  # bytes left of an octet-counted line that is too long
        self._skip_to_newline = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that are now complete, without their line ends, never empty ones."""
        self._buffer += data
        while (line := self._next()) is not None:
            if line:
                yield line

    def rest(self, *, cut: bool) -> bytes:
        """Return the last line when the peer closed without a newline; empty if it is known to be incomplete.

        Args:
            cut: the connection broke, so whatever is left is incomplete.
        """
        if self._buffer and (cut or _COUNTED.match(self._buffer)):
            self._counters.malformed += 1
            return b""
        return bytes(self._buffer).rstrip(b"\r\n")

    def _next(self) -> bytes | None:
        """Take one line off the buffer: empty if it was skipped, None if more bytes are needed."""
        if self._skip:
            self._skip -= len(self._take(self._skip))
            return None if self._skip else b""
        if not self._skip_to_newline and (counted := _COUNTED.match(self._buffer)):
            return self._next_counted(int(counted[1]), counted.end() - 1)
        return self._next_ended()

    def _next_counted(self, length: int, start: int) -> bytes | None:
        if length > self._max_line:
            self._counters.malformed += 1
            self._take(start)
            self._skip = length
            return b""
        if len(self._buffer) < start + length:
            return None
        return self._take(start + length)[start:].rstrip(b"\r\n")

    def _next_ended(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        too_long = (len(self._buffer) if end < 0 else end) > self._max_line
        if too_long and not self._skip_to_newline:
            self._counters.malformed += 1
        skipped = too_long or self._skip_to_newline
        self._skip_to_newline = skipped and end < 0
        if end < 0:
            if skipped:
                self._buffer.clear()
            return None
        line = self._take(end + 1).rstrip(b"\r\n")
        return b"" if skipped else line

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

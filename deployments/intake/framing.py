"""Where a syslog line ends on a stream, and the count of what became of the lines. No I/O."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from deployments.intake.syslog import MAX_LINE

_COUNTED = re.compile(rb"([1-9][0-9]{0,6}) <")
_SHOWN = 200  # bytes kept of a line that is given up


@dataclass
class Counters:
    """What became of the traffic; the numbers only grow.

    Attributes:
        received: whole lines handed on.
        malformed: lines longer than allowed, and lines cut off by the end of their connection.
        dropped: datagrams given up because those before them were handled too slowly.
        lost: datagrams the kernel dropped before we could read them, as known with the last one read; Linux only.
        refused: connections over the limit, closed at once.
        not_allowed: connections and datagrams from networks that may not send.
        handshakes_failed: TLS connections that came to nothing: no TLS, a wrong certificate or none, too slow.
    """

    received: int = 0
    malformed: int = 0
    dropped: int = 0
    lost: int = 0
    refused: int = 0
    not_allowed: int = 0
    handshakes_failed: int = 0


@dataclass(frozen=True)
class Broken:
    """A line that was given up.

    Attributes:
        why: what was wrong with it.
        beginning: its first bytes, as far as they were kept; may be empty.
    """

    why: str
    beginning: bytes = b""


def too_long(max_line: int, beginning: bytes = b"") -> Broken:
    """What is left of a line of more than so many bytes."""
    return Broken(f"the line is longer than {max_line} bytes: shorten the report format", beginning[:_SHOWN])


class Frames:
    """Cuts one stream into lines: octet-counted or ended by a newline, told apart line by line (RFC 6587, RFC 5425)."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._buffer = bytearray()
        self._skip = 0  # bytes left of an octet-counted line that is too long
        self._skip_to_newline = False

    def feed(self, data: bytes) -> Iterator[bytes | Broken]:
        """Yield the lines that are now complete, without their line ends, never empty ones."""
        self._buffer += data
        while (line := self._next()) is not None:
            if line:
                yield line

    def rest(self, *, cut: bool) -> bytes | Broken:
        """Return the last line when the peer closed without a newline; empty if there is none.

        Args:
            cut: the connection broke, so whatever is left is incomplete.
        """
        if self._buffer and (cut or _COUNTED.match(self._buffer)):
            return Broken("the connection ended within the line", bytes(self._buffer[:_SHOWN]))
        return bytes(self._buffer).rstrip(b"\r\n")

    def _next(self) -> bytes | Broken | None:
        """Take one line off the buffer: empty if it was skipped, None if more bytes are needed."""
        if self._skip:
            self._skip -= len(self._take(self._skip))
            return None if self._skip else b""
        if not self._skip_to_newline and (counted := _COUNTED.match(self._buffer)):
            return self._next_counted(int(counted[1]), counted.end() - 1)
        return self._next_ended()

    def _next_counted(self, length: int, start: int) -> bytes | Broken | None:
        if length > self._max_line:
            self._take(start)
            self._skip = length
            return too_long(self._max_line)
        if len(self._buffer) < start + length:
            return None
        return self._take(start + length)[start:].rstrip(b"\r\n")

    def _next_ended(self) -> bytes | Broken | None:
        end = self._buffer.find(b"\n")
        size = len(self._buffer) if end < 0 else end
        if self._skip_to_newline or size > self._max_line:
            known, beginning = self._skip_to_newline, self._take(size if end < 0 else end + 1)
            self._skip_to_newline = end < 0
            if known:
                return None if end < 0 else b""
            return too_long(self._max_line, beginning[: self._max_line])
        return None if end < 0 else self._take(end + 1).rstrip(b"\r\n")

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

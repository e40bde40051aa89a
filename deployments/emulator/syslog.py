"""Syslog northbound: how Manager writes an alarm as a line, and the senders for UDP and TCP.

Source: configuring_syslog_northbound_parameters (fields, PRI, identifier). The default template, the time format and
the separator of `locationInfo` are not published: those here are assumptions.
"""

import re
import socket
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from deployments.emulator.alarms import Definition
    from deployments.emulator.inventory import Alarm

PRIORITY = 16 * 8 + 6  # local0, Informational
IDENTIFIER = "MRS Manager"
DEFAULT_TEMPLATE = "|".join(
    f"${{{field}}}"
    for field in [
        "dn",
        "id",
        "name",
        "serialNo",
        "category",
        "occurTime",
        "clearTime",
        "isAutoClear",
        "locationInfo",
        "clearType",
        "level",
        "cause",
        "additionalInfo",
        "object",
    ]
)
LEVELS = {"Critical": 1, "Major": 2, "Minor": 3, "Warning": 4}
CLEAR_TYPES = {"Uncleared": -1, "Auto": 0, "Manual": 2}


def line_of(alarm: "Alarm", definition: "Definition", now: datetime, template: str = DEFAULT_TEMPLATE) -> str:
    """One RFC 3164 line for an alarm as it is at `now` (Manager's clock); unknown template fields stay as they are."""
    cluster = alarm.host.cluster
    fields = {
        "dn": cluster.name,
        "id": alarm.alarm_id,
        "name": definition.name,
        "serialNo": alarm.serial,
        "category": 0 if alarm.status == "Uncleared" else 1,
        "occurTime": _time(alarm.occurred_ms),
        # "--" is what Manager's alarm page shows for an alarm that is not cleared.
        "clearTime": _time(alarm.cleared_ms) if alarm.cleared_ms else "--",
        "isAutoClear": 1,
        "locationInfo": alarm.location,
        "clearType": CLEAR_TYPES[alarm.status],
        "level": LEVELS[definition.severity],
        "cause": definition.cause,
        "additionalInfo": "",
        "object": "meta",
    }
    body = re.sub(r"\$\{(\w+)\}", lambda match: str(fields.get(match[1], match[0])), template)
    stamp = f"{now:%b} {now.day:2d} {now:%H:%M:%S}"
    return f"<{PRIORITY}>{stamp} {cluster.master.ip} {IDENTIFIER}: {body}"


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


class SyslogSender:
    """Sends lines to one receiver; a sink for the alarms. Lines that cannot be sent are lost, as syslog loses them.

    UDP: one datagram per line. TCP: one line ended by a newline, on a connection opened when first needed and again
    after it broke.
    """

    def __init__(self, receiver: tuple[str, int], protocol: Literal["udp", "tcp"] = "udp") -> None:
        self._receiver = receiver
        self._protocol = protocol
        self._socket: socket.socket | None = None
        self.lost = 0

    def __call__(self, line: str) -> None:
        """Send a line; one that cannot be sent is only counted in `lost`."""
        try:
            self._send(line.encode())
        except OSError:
            self.lost += 1
            self._close()

    def _send(self, data: bytes) -> None:
        if self._protocol == "udp":
            if self._socket is None:
                self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.sendto(data, self._receiver)
            return
        if self._socket is None:
            # Short: this blocks the server, and a receiver that does not listen must not stop it.
            self._socket = socket.create_connection(self._receiver, timeout=1)
        self._socket.sendall(data + b"\n")

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

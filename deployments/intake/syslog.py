"""MRS alarms as Manager reports them over syslog: a line in, an observation or a refusal out. No I/O.

Source: Manager 3.x, "Configuring Syslog Northbound Parameters" (fields, codes, limits). The page does not publish the
default report format, the format of times and the separator inside ``locationInfo``; these are read tolerantly.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import TypeVar

from tasks.models import ClearedBy, Kind, Observation

MAX_LINE = 8192
MAX_TEMPLATE = 1024
IDENTIFIERS = ("MRS Manager", "FusionInsight Manager")
DEFAULT_TEMPLATE = (
    "${dn}|${id}|${name}|${serialNo}|${category}|${occurTime}|${clearTime}|${isAutoClear}|"
    "${locationInfo}|${clearType}|${level}|${cause}|${additionalInfo}|${object}"
)

_FIELD = re.compile(r"\$\{([^${}]*)\}")
_NAMES = tuple(_FIELD.findall(DEFAULT_TEMPLATE))
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_. |${}-]")

_KINDS: Mapping[str, Kind] = {"0": "raised", "1": "cleared", "2": "event"}
_CLEARED_BY: Mapping[str, ClearedBy | None] = {"": None, "-1": None, "0": "auto", "2": "person"}
_UNUSED: Mapping[str, Mapping[str, None]] = {
    "isAutoClear": dict.fromkeys(("", "0", "1")),
    "level": dict.fromkeys(("", "1", "2", "3", "4")),
}
_PARTS = ("source", "servicename", "rolename", "hostname")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_MS = re.compile(r"[0-9]{12,13}")
_DATE_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:]{8}(?:[.,][0-9]{1,9})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?")
_YEARLESS = re.compile(r"([A-Z][a-z]{2}) ([ 0-9][0-9]) ([0-9]{2}:[0-9]{2}:[0-9]{2})")
_HALF_A_YEAR = timedelta(days=183)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_PRIORITY = re.compile(r"<([0-9]{1,3})>")
_RFC5424 = (
    r"1 (-|[0-9]{4}-\S{1,60}) \S{1,255} (?:TAG|\S{1,48}) \S{1,128} \S{1,32} "
    r"(?:-|(?:\[(?:[^\]\\]|\\.)*\])+)(?: \ufeff?(.*))?"
)
_RFC3164 = (
    r"(?:([A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9-]{5}T\S{8,40}) )?"
    r"(?:\S{1,255} )?(?:TAG)(?:\[[^]\s]{0,128}\])?: ?(.*)"
)

_Value = TypeVar("_Value")


class Malformed(Exception):
    """A line that is no alarm: the message says what is wrong, where, what was expected and what was found."""


@dataclass(frozen=True)
class Heartbeat:
    """The text that Manager sends to show that it is there."""


class Template:
    """The operator's report format, read backwards.

    A field ends at the first place where the separator after it occurs; the last field takes all that remains and may
    hold the separator. So free text (``cause``, ``additionalInfo``, ``object``) belongs at the end.

    Raises:
        ValueError: the format is not one Manager accepts, or cannot be read back; says what to change.
    """

    def __init__(self, text: str = DEFAULT_TEMPLATE) -> None:
        pieces = _FIELD.split(text)
        literals, names = pieces[0::2], pieces[1::2]
        if problem := _problem(text, literals, names):
            raise ValueError(f"report format: {problem}")
        self.text = text
        self.names = tuple(names)
        self._start, *self._separators, self._end = literals

    def parse(self, body: str) -> Mapping[str, str]:
        """Return the text of each field, as given; one pass over at most ``MAX_LINE`` characters.

        Raises:
            Malformed: the body does not follow the report format.
        """
        if len(body) > MAX_LINE:
            raise _malformed("too much text", "the body", f"at most {MAX_LINE} characters", body)
        if not body.startswith(self._start):
            raise _malformed("unknown start", "the body", f"{self._start!r} first", body)
        at, values = len(self._start), {}
        for name, separator in zip(self.names[:-1], self._separators, strict=True):
            end = body.find(separator, at)
            if end < 0:
                raise _malformed("no end", f"field {name}", f"{separator!r} after it", body[at:])
            values[name] = body[at:end]
            at = end + len(separator)
        rest = body[at:]
        if not rest.endswith(self._end):
            raise _malformed("no end", f"field {self.names[-1]}", f"{self._end!r} after it", rest)
        return {**values, self.names[-1]: rest.removesuffix(self._end)}


def parse_line(
    line: bytes | str,
    template: Template,
    *,
    zone: tzinfo = UTC,
    identifiers: tuple[str, ...] = IDENTIFIERS,
    heartbeat: str = "",
) -> Observation | Heartbeat:
    """Read one syslog message, RFC 3164 or RFC 5424; header timestamp and host may be missing.

    ``category`` alone decides what the alarm did; what else speaks of a clear is taken from a clear only.

    Args:
        line: the message, without or with the line end; at most ``MAX_LINE`` long.
        template: the report format set on Manager.
        zone: Manager's time zone, for times that name none; of a repeated hour the earlier one is meant.
        identifiers: the values "Identifier" may have on Manager. RFC 5424 allows no space in it, so there any single
            word is accepted in its place.
        heartbeat: the heartbeat text set on Manager; empty where it sends none.

    Raises:
        Malformed: the line is neither an alarm in this report format nor the heartbeat.

    Source: Manager 3.x, "Configuring Syslog Northbound Parameters", tables 1 and 3.
    """
    if len(line) > MAX_LINE:
        raise _malformed("too much text", "the line", f"at most {MAX_LINE} bytes", line)
    try:
        text = line.decode() if isinstance(line, bytes) else line
    except UnicodeDecodeError as error:
        where = f"the line at byte {error.start}"
        raise _malformed("wrong encoding", where, "UTF-8", error.object[error.start :]) from None
    stamp, body = _split(text.rstrip("\r\n\0"), identifiers)
    if heartbeat.strip() and body.strip() == heartbeat.strip():
        return Heartbeat()
    fields = template.parse(body)
    alarm_id = _given(fields, "id")
    if not re.fullmatch("[0-9]{1,10}", alarm_id):
        raise _malformed("bad number", "field id", "an alarm ID of 1 to 10 digits", alarm_id)
    cluster = _given(fields, "dn")
    if not cluster:
        raise _malformed("no cluster", "field dn", "the name of a cluster", fields["dn"])
    for name, codes in _UNUSED.items():
        _coded(fields, name, codes)
    kind = _coded(fields, "category", _KINDS)
    occurred, cleared = _time(fields, "occurTime", zone), _time(fields, "clearTime", zone)
    cleared_by = _coded(fields, "clearType", _CLEARED_BY)
    return Observation(
        alarm_id=alarm_id,
        kind=kind,
        cluster=cluster,
        host=_host(fields),
        serial=_given(fields, "serialNo"),
        occurred=occurred,
        cleared=cleared if kind == "cleared" else None,
        cleared_by=cleared_by if kind == "cleared" else None,
        sent=_sent(stamp, zone, occurred),
    )


def _malformed(what: str, where: str, expected: str, found: str | bytes) -> Malformed:
    shown = repr(found) if len(found) <= 60 else f"{found[:57]!r}..."
    return Malformed(f"{what} in {where}: expected {expected}, got {shown}")


def _problem(text: str, literals: list[str], names: list[str]) -> str | None:
    """Say what to change in a report format, or None."""
    if len(text) > MAX_TEMPLATE:
        return f"it has {len(text)} characters; shorten it to {MAX_TEMPLATE}"
    if forbidden := _FORBIDDEN.search(text):
        return f"{forbidden[0]!r} is not allowed; use letters, digits, space and _ . - | $ {{ }}"
    if any("${" in literal for literal in literals):
        return "a '${' opens no field; write fields as ${name}"
    for name in names:
        if name not in _NAMES:
            return f"field ${{{name}}} is unknown; use {', '.join(_NAMES)}"
        if names.count(name) > 1:
            return f"field ${{{name}}} appears more than once; keep one"
    for before, separator, after in zip(names, literals[1:], names[1:], strict=False):
        if not separator:
            return f"nothing separates ${{{before}}} from ${{{after}}}; put a separator such as | between them"
    missing = [name for name in ("dn", "id", "category") if name not in names]
    return f"${{{missing[0]}}} is missing; add it" if missing else None


@cache
def _headers(identifiers: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    tag = "|".join(map(re.escape, identifiers))
    flags = re.ASCII | re.DOTALL
    return re.compile(_RFC5424.replace("TAG", tag), flags), re.compile(_RFC3164.replace("TAG", tag), flags)


def _split(line: str, identifiers: tuple[str, ...]) -> tuple[str, str]:
    """Return the header's timestamp, empty if it has none, and the body."""
    priority = _PRIORITY.match(line)
    if priority is None or int(priority[1]) > 191:
        raise _malformed("no priority", "the header", "<0> to <191> first", line)
    for header in _headers(identifiers):
        if match := header.fullmatch(line, priority.end()):
            return match[1] or "", match[2] or ""
    known = " or ".join(map(repr, identifiers))
    raise _malformed("unknown form", "the header", f"RFC 3164 or RFC 5424 with the identifier {known}", line)


def _given(fields: Mapping[str, str], name: str) -> str:
    """Return the trimmed text of a field, empty if it is ``--`` or not in the template."""
    text = fields.get(name, "").strip()
    if _UNSAFE.search(text):
        raise _malformed("control characters", f"field {name}", "printable text", text)
    return "" if text == "--" else text


def _coded(fields: Mapping[str, str], name: str, codes: Mapping[str, _Value]) -> _Value:
    text = _given(fields, name)
    if text not in codes:
        raise _malformed("unknown code", f"field {name}", f"one of {', '.join(filter(None, codes))}", text)
    return codes[text]


def _time(fields: Mapping[str, str], name: str, zone: tzinfo) -> datetime | None:
    text = _given(fields, name)
    if text in ("", "0"):
        return None
    if _EPOCH_MS.fullmatch(text):
        return _EPOCH + timedelta(milliseconds=int(text))
    if moment := _moment(text, zone):
        return moment
    raise _malformed("bad time", f"field {name}", "YYYY-MM-DD HH:MM:SS, ISO 8601 or milliseconds since 1970", text)


def _moment(text: str, zone: tzinfo) -> datetime | None:
    with suppress(ValueError, OverflowError):
        if _DATE_TIME.fullmatch(text):
            stated = datetime.fromisoformat(text)
            return (stated if stated.tzinfo else stated.replace(tzinfo=zone)).astimezone(UTC)
    return None


def _sent(stamp: str, zone: tzinfo, occurred: datetime | None) -> datetime | None:
    """Read the header's timestamp; one that cannot be read is none, for no alarm is refused over it."""
    written = _YEARLESS.fullmatch(stamp)
    if written is None or written[1] not in _MONTHS:
        return _moment(stamp, zone)
    if occurred is None:
        return None
    month = _MONTHS.index(written[1]) + 1
    for year in (occurred.year, occurred.year - 1, occurred.year + 1):  # RFC 3164 leaves it out
        moment = _moment(f"{year:04}-{month:02}-{int(written[2]):02} {written[3]}", zone)
        if moment and abs(moment - occurred) <= _HALF_A_YEAR:
            return moment
    return None


def _host(fields: Mapping[str, str]) -> str:
    """Return the location's HostName, empty where it has none: not every alarm is about a host."""
    text = _given(fields, "locationInfo")
    parts: dict[str, str] = {}
    for piece in filter(str.strip, re.split("[;,]", text)):
        key, equals, value = piece.partition("=")
        part = key.strip().lower()
        if not equals or part in parts:
            raise _malformed("location not readable", "field locationInfo", "each key=value once", piece)
        if part in _PARTS:
            parts[part] = value.strip()
    host = parts.get("hostname", "")
    return "" if host == "--" else host

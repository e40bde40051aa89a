from datetime import UTC, datetime, timedelta, timezone, tzinfo
from string import Template as Format
from zoneinfo import ZoneInfo

import pytest

from deployments.intake.syslog import DEFAULT_TEMPLATE, Malformed, Observation, Template, parse_line

LOCATION = "Source=prod;ServiceName=Meta;RoleName=Meta;HostName=node-master1"
FIELDS = {
    "dn": "prod",
    "id": "12110",
    "name": "Failed to get ECS temporary AK/SK",
    "serialNo": "4711",
    "category": "0",
    "occurTime": "2026-11-22 13:47:42",
    "clearTime": "--",
    "isAutoClear": "1",
    "locationInfo": LOCATION,
    "clearType": "-1",
    "level": "2",
    "cause": "",
    "additionalInfo": "",
    "object": "",
}
HEADER = "<134>Nov 22 13:47:42 oms1 MRS Manager: "
OCCURRED = datetime(2026, 11, 22, 13, 47, 42, tzinfo=UTC)
CLEARED = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
PARTS = {"Source": "prod", "ServiceName": "Meta", "RoleName": "Meta", "HostName": "node-master1"}
NAME = "Failed to get ECS temporary AK/SK"
HOST = "node-master1"
RAISED = Observation("12110", "raised", None, "prod", "4711", OCCURRED, None, HOST, PARTS, "major", NAME)


def body(**changes: str) -> str:
    """The default report format filled in, with some fields changed."""
    return Format(DEFAULT_TEMPLATE).substitute(FIELDS | changes)


def message(**changes: str) -> str:
    """What the refusal says about a line with some fields changed."""
    with pytest.raises(Malformed) as refusal:
        parse_line(HEADER + body(**changes), Template())
    return str(refusal.value)


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        "<134>Nov  2 13:47:42 oms1 FusionInsight Manager: ",
        "<134>Nov 22 13:47:42 oms1 MRS Manager[4242]: ",
        "<134>Nov 22 13:47:42 MRS Manager: ",
        "<134>2026-11-22T13:47:42.123456+08:00 oms1 MRS Manager: ",
        "<134>oms1 MRS Manager:",
        "<134>MRS Manager: ",
        "<0>MRS Manager: ",
        "<134>1 2026-11-22T13:47:42.123Z oms1 MRS Manager - - - ",
        "<134>1 2026-11-22T13:47:42Z oms1 app 17 alarm - \ufeff",
        "<134>1 - - MRS Manager - - - ",
        '<134>1 - oms1 MRS Manager 1 - [timeQuality tzKnown="1"][x@1 y="a \\] b"] ',
    ],
)
def test_header(header: str) -> None:
    """The header in front of the report changes nothing about what is observed, whole or in part."""
    assert parse_line(header + body(), Template()) == RAISED


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\0"])
def test_line_end(end: str) -> None:
    """Bytes and text are read alike, with or without a line end."""
    line = HEADER + body() + end
    assert [parse_line(line, Template()), parse_line(line.encode(), Template())] == [RAISED, RAISED]


def test_identifier() -> None:
    """An identifier of the operator's own is accepted where the caller names it, and only there."""
    line = "<134>oms1 Lake {House}|1: " + body()
    assert parse_line(line, Template(), identifiers=("Lake {House}|1",)) == RAISED
    with pytest.raises(Malformed, match="expected RFC 3164 or RFC 5424 with the identifier 'MRS Manager' or"):
        parse_line(line, Template())


def test_clear() -> None:
    """A clear carries the serial number of its alarm, the time, and whether Manager or a person cleared it."""
    line = HEADER + body(category="1", clearTime="2026-11-22 14:00:00", clearType="2")
    assert parse_line(line, Template()) == Observation(
        "12110", "cleared", "person", "prod", "4711", OCCURRED, CLEARED, HOST, PARTS, "major", NAME
    )


@pytest.mark.parametrize(
    ("category", "clear_type", "level", "expected"),
    [
        ("0", "-1", "1", ("raised", None, "critical")),
        ("0", "--", "2", ("raised", None, "major")),
        ("1", "0", "3", ("cleared", "auto", "minor")),
        ("1", "2", "4", ("cleared", "person", "warning")),
        ("2", "", "", ("event", None, None)),
    ],
)
def test_codes(category: str, clear_type: str, level: str, expected: tuple[str, str | None, str | None]) -> None:
    """Each published code has its word, and what is not given is None."""
    seen = parse_line(HEADER + body(category=category, clearType=clear_type, level=level), Template())
    assert (seen.kind, seen.cleared_by, seen.severity) == expected


BEIJING = timezone(timedelta(hours=8))


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-11-22 13:47:42", UTC, OCCURRED),
        ("2026-11-22 21:47:42", BEIJING, OCCURRED),
        ("2026-11-22T21:47:42+08:00", UTC, OCCURRED),
        ("2026-11-22T21:47:42+0800", UTC, OCCURRED),
        ("2026-11-22T13:47:42Z", BEIJING, OCCURRED),
        ("2026-11-22 13:47:42.500", UTC, OCCURRED + timedelta(seconds=0.5)),
        ("1795355262000", BEIJING, OCCURRED),
        ("2026-10-25 02:30:00", ZoneInfo("Europe/Berlin"), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        ("--", UTC, None),
        ("", UTC, None),
        ("0", UTC, None),
    ],
)
def test_times(text: str, zone: tzinfo, expected: datetime | None) -> None:
    """Times are read in Manager's time zone unless they name their own, and become UTC."""
    assert parse_line(HEADER + body(occurTime=text), Template(), zone=zone).occurred == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LOCATION, PARTS),
        ("source = prod, SERVICENAME=Meta, rolename=Meta, hostname=node-master1,", PARTS),
        ("HostName=10.0.0.7;Trigger Condition=3 polls", {"HostName": "10.0.0.7"}),
        ("", {}),
        ("--", {}),
    ],
)
def test_location(text: str, expected: dict[str, str]) -> None:
    """The location's four parts are found whatever their case, order and separator; the host is one of them."""
    seen = parse_line(HEADER + body(locationInfo=text), Template())
    assert (seen.location, seen.host) == (expected, expected.get("HostName"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"category": "7"}, "unknown code in field category: expected one of 0, 1, 2, got '7'"),
        ({"category": ""}, "unknown code in field category: expected one of 0, 1, 2, got ''"),
        ({"clearType": "1"}, "unknown code in field clearType: expected one of -1, 0, 2, got '1'"),
        ({"level": "major"}, "unknown code in field level: expected one of 1, 2, 3, 4, got 'major'"),
        ({"id": "１２"}, "bad number in field id: expected an alarm ID of 1 to 10 digits, got '１２'"),
        ({"id": "9" * 99}, f"bad number in field id: expected an alarm ID of 1 to 10 digits, got '{'9' * 57}'..."),
        ({"dn": " -- "}, "no cluster in field dn: expected the name of a cluster, got ' -- '"),
        ({"dn": "a\x1b[2J"}, "control characters in field dn: expected printable text, got 'a\\x1b[2J'"),
        (
            {"occurTime": "2026-02-30 00:00:00"},
            "bad time in field occurTime: expected YYYY-MM-DD HH:MM:SS, ISO 8601 or milliseconds since 1970, "
            "got '2026-02-30 00:00:00'",
        ),
        (
            {"occurTime": "9999-12-31T23:59:59-12:00"},
            "bad time in field occurTime: expected YYYY-MM-DD HH:MM:SS, ISO 8601 or milliseconds since 1970, "
            "got '9999-12-31T23:59:59-12:00'",
        ),
        (
            {"clearTime": "1795355262"},
            "bad time in field clearTime: expected YYYY-MM-DD HH:MM:SS, ISO 8601 or milliseconds since 1970, "
            "got '1795355262'",
        ),
        (
            {"locationInfo": "Source=prod"},
            "location without a host in field locationInfo: expected HostName=... among its parts, got 'Source=prod'",
        ),
        (
            {"locationInfo": "HostName=a;hostname=b"},
            "location not readable in field locationInfo: expected each key=value once, got 'hostname=b'",
        ),
        (
            {"locationInfo": "HostName=a,b"},
            "location not readable in field locationInfo: expected each key=value once, got 'b'",
        ),
    ],
)
def test_refused_fields(changes: dict[str, str], expected: str) -> None:
    """A field that cannot be understood is refused with one sentence: what, where, what was expected and found."""
    assert message(**changes) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", "no priority in the header: expected <0> to <191> first, got ''"),
        (b"<192>MRS Manager: x", "no priority in the header: expected <0> to <191> first, got '<192>MRS Manager: x'"),
        (b"<134>MRS Manager: ok\xff\n", "wrong encoding in the line at byte 20: expected UTF-8, got b'\\xff\\n'"),
        (b"<134>MRS Manager: heartbeat", "no end in field dn: expected '|' after it, got 'heartbeat'"),
        (b"<134>MRS Manager: a|1\n|\n", "no end in field name: expected '|' after it, got ''"),
        (b"x" * 8193, f"too much text in the line: expected at most 8192 bytes, got b'{'x' * 57}'..."),
        (
            b"<86>oms1 sshd: no",
            "unknown form in the header: expected RFC 3164 or RFC 5424 with the identifier 'MRS Manager' or "
            "'FusionInsight Manager', got '<86>oms1 sshd: no'",
        ),
    ],
)
def test_refused_lines(line: bytes, expected: str) -> None:
    """A line that is no report is refused with one short, printable sentence."""
    with pytest.raises(Malformed) as refusal:
        parse_line(line, Template())
    assert str(refusal.value) == expected

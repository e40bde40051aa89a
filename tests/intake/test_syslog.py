from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from string import Template as Format
from zoneinfo import ZoneInfo

import pytest

from deployments.intake.syslog import DEFAULT_TEMPLATE, Heartbeat, Malformed, Template, parse_line
from tasks.models import Observation

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
HOST = "node-master1"
RAISED = Observation(
    alarm_id="12110", kind="raised", cluster="prod", host=HOST, serial="4711", occurred=OCCURRED, sent=OCCURRED
)


def body(**changes: str) -> str:
    """The default report format filled in, with some fields changed."""
    return Format(DEFAULT_TEMPLATE).substitute(FIELDS | changes)


def seen(line: str, zone: tzinfo = UTC) -> Observation:
    """What is observed in a line of the default report format."""
    answer = parse_line(line, Template(), zone=zone)
    assert isinstance(answer, Observation)
    return answer


def message(**changes: str) -> str:
    """What the refusal says about a line with some fields changed."""
    with pytest.raises(Malformed) as refusal:
        parse_line(HEADER + body(**changes), Template())
    return str(refusal.value)


@pytest.mark.parametrize(
    ("header", "sent"),
    [
        (HEADER, OCCURRED),
        ("<134>Nov  2 13:47:42 oms1 FusionInsight Manager: ", OCCURRED - timedelta(days=20)),
        ("<134>Nov 22 13:47:45 oms1 MRS Manager[4242]: ", OCCURRED + timedelta(seconds=3)),
        ("<134>Nov 22 13:47:42 MRS Manager: ", OCCURRED),
        ("<134>2026-11-22T21:47:42.5+08:00 oms1 MRS Manager: ", OCCURRED + timedelta(seconds=0.5)),
        ("<134>oms1 MRS Manager:", None),
        ("<134>MRS Manager: ", None),
        ("<0>MRS Manager: ", None),
        ("<134>1 2026-11-22T13:47:42.123456Z oms1 MRS Manager - - - ", OCCURRED + timedelta(microseconds=123456)),
        ("<134>1 2026-11-22T13:47:42Z oms1 app 17 alarm - \ufeff", OCCURRED),
        ("<134>1 - - MRS Manager - - - ", None),
        ('<134>1 - oms1 MRS Manager 1 - [timeQuality tzKnown="1"][x@1 y="a \\] b"] ', None),
    ],
)
def test_header(header: str, sent: datetime | None) -> None:
    """The header in front of the report tells when it was sent, and changes nothing else, whole or in part."""
    assert parse_line(header + body(), Template()) == replace(RAISED, sent=sent)


@pytest.mark.parametrize(
    ("stamp", "occurred", "zone", "expected"),
    [
        ("Jan  1 00:00:07", "2026-12-31 23:59:58", "UTC", datetime(2027, 1, 1, 0, 0, 7, tzinfo=UTC)),
        ("Dec 31 23:59:58", "2027-01-01 00:00:07", "UTC", datetime(2026, 12, 31, 23, 59, 58, tzinfo=UTC)),
        ("Jan  1 07:00:00", "2026-12-31 22:00:00", "Asia/Shanghai", datetime(2026, 12, 31, 23, 0, tzinfo=UTC)),
        ("Feb 29 12:00:00", "2028-02-29 11:00:00", "UTC", datetime(2028, 2, 29, 12, 0, tzinfo=UTC)),
        ("Feb 29 12:00:00", "2027-11-22 11:00:00", "UTC", datetime(2028, 2, 29, 12, 0, tzinfo=UTC)),
        ("Feb 29 12:00:00", "2026-02-28 11:00:00", "UTC", None),
        ("Nov 22 13:47:42", "--", "UTC", None),
        ("Nov 22 14:47:42", "1795355262000", "Europe/Berlin", OCCURRED),
        ("2026-11-22T13:47:42", "--", "Europe/Berlin", datetime(2026, 11, 22, 12, 47, 42, tzinfo=UTC)),
        ("2026-11-22T13:47:42Z", "--", "Europe/Berlin", OCCURRED),
        ("Foo 22 13:47:42", "2026-11-22 13:47:42", "UTC", None),
        ("Nov 31 13:47:42", "2026-11-22 13:47:42", "UTC", None),
        ("Nov 22 25:47:42", "2026-11-22 13:47:42", "UTC", None),
        ("2026-02-30T13:47:42Z", "2026-11-22 13:47:42", "UTC", None),
    ],
)
def test_sent(stamp: str, occurred: str, zone: str, expected: datetime | None) -> None:
    """A header's time is in Manager's zone and in the year nearest to the alarm's; one that is none is left out."""
    line = f"<134>{stamp} oms1 MRS Manager: " + body(occurTime=occurred)
    assert seen(line, ZoneInfo(zone)).sent == expected


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (" still here\n", HEADER + "still here", Heartbeat()),
        ("still here", "<134>1 - oms1 app - - - still here \n", Heartbeat()),
        ("pulse|1", HEADER + "pulse|1", Heartbeat()),
        ("still here", HEADER + body(), RAISED),
        ("", HEADER + body(), RAISED),
    ],
)
def test_heartbeat(text: str, line: str, expected: Heartbeat | Observation) -> None:
    """A line whose body is the configured text is a heartbeat, and nothing else is."""
    assert parse_line(line, Template(), heartbeat=text) == expected


@pytest.mark.parametrize(("text", "line"), [("", HEADER), (" ", HEADER + " "), ("still here", HEADER + "still here!")])
def test_no_heartbeat(text: str, line: str) -> None:
    """Without a configured text there is no heartbeat, and a text that only resembles it is none."""
    with pytest.raises(Malformed, match=r"^no end in field dn"):
        parse_line(line, Template(), heartbeat=text)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\0"])
def test_line_end(end: str) -> None:
    """Bytes and text are read alike, with or without a line end."""
    line = HEADER + body() + end
    assert [parse_line(line, Template()), parse_line(line.encode(), Template())] == [RAISED, RAISED]


def test_identifier() -> None:
    """An identifier of the operator's own is accepted where the caller names it, and only there."""
    line = "<134>oms1 Lake {House}|1: " + body()
    assert parse_line(line, Template(), identifiers=("Lake {House}|1",)) == replace(RAISED, sent=None)
    with pytest.raises(Malformed, match="expected RFC 3164 or RFC 5424 with the identifier 'MRS Manager' or"):
        parse_line(line, Template())


def test_clear() -> None:
    """A clear carries the serial number of its alarm, the time, and whether Manager or a person cleared it."""
    line = HEADER + body(category="1", clearTime="2026-11-22 14:00:00", clearType="2")
    assert parse_line(line, Template()) == replace(RAISED, kind="cleared", cleared=CLEARED, cleared_by="person")


@pytest.mark.parametrize(
    ("category", "clear_type", "expected"),
    [
        ("0", "-1", ("raised", None, None)),
        ("0", "--", ("raised", None, None)),
        ("0", "2", ("raised", None, None)),
        ("1", "0", ("cleared", "auto", CLEARED)),
        ("1", "2", ("cleared", "person", CLEARED)),
        ("1", "-1", ("cleared", None, CLEARED)),
        ("2", "", ("event", None, None)),
    ],
)
def test_codes(category: str, clear_type: str, expected: tuple[str, str | None, datetime | None]) -> None:
    """The category alone says what it is; by whom and when is taken from a clear only."""
    told = seen(HEADER + body(category=category, clearType=clear_type, clearTime="2026-11-22 14:00:00"))
    assert (told.kind, told.cleared_by, told.cleared) == expected


@pytest.mark.parametrize("auto", ["0", "1", "", "--"])
@pytest.mark.parametrize("level", ["1", "2", "3", "4", "", "--"])
def test_unused_codes(level: str, auto: str) -> None:
    """Every published code that nothing depends on is accepted, or none at all."""
    assert parse_line(HEADER + body(level=level, isAutoClear=auto), Template()) == RAISED


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
    assert seen(HEADER + body(occurTime=text), zone).occurred == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LOCATION, HOST),
        ("source = prod, SERVICENAME=Meta, rolename=Meta, hostname=node-master1,", HOST),
        ("HostName=10.0.0.7;Trigger Condition=3 polls", "10.0.0.7"),
        ("Source=prod;ServiceName=HDFS", ""),
        ("Source=prod;HostName=--", ""),
        ("", ""),
        ("--", ""),
    ],
)
def test_location(text: str, expected: str) -> None:
    """The host is found in the location whatever its case, order and separator; not every alarm has one."""
    assert seen(HEADER + body(locationInfo=text)).host == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"category": "7"}, "unknown code in field category: expected one of 0, 1, 2, got '7'"),
        ({"category": ""}, "unknown code in field category: expected one of 0, 1, 2, got ''"),
        ({"clearType": "1"}, "unknown code in field clearType: expected one of -1, 0, 2, got '1'"),
        ({"level": "major"}, "unknown code in field level: expected one of 1, 2, 3, 4, got 'major'"),
        ({"isAutoClear": "2"}, "unknown code in field isAutoClear: expected one of 0, 1, got '2'"),
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

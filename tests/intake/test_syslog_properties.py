from datetime import UTC, datetime, timedelta, timezone
from itertools import chain, pairwise
from string import Template as Format

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.intake.framing import Frames
from deployments.intake.syslog import DEFAULT_TEMPLATE, Heartbeat, Malformed, Template, parse_line
from tasks.models import ClearedBy, Kind, Observation

SEPARATORS = ["|", " | ", "||", " |.| ", "{|}"]
OPTIONAL = ["name", "serialNo", "occurTime", "clearTime", "isAutoClear", "locationInfo", "clearType", "level", "object"]
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="|$;,={}"), min_size=1)
NAMES = WORDS.filter(lambda word: word != "--")
SECONDS = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
CATEGORIES = {"raised": "0", "cleared": "1", "event": "2"}
CLEAR_TYPES = {None: "-1", "auto": "0", "person": "2"}
JUNK = st.sampled_from(["", "|", "--", "0", "1", "-1", "12110", "HostName=a", ";", "<1>", "9" * 13, "[", "\\", "\x1b"])


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """Any observation that the default report format can carry, behind a header that names the time."""
    kind: Kind = draw(st.sampled_from(["raised", "cleared", "event"]))
    by: ClearedBy | None = draw(st.sampled_from([None, "auto", "person"]))
    cleared = draw(st.none() | SECONDS)
    return Observation(
        alarm_id=draw(st.from_regex("[0-9]{1,10}", fullmatch=True)),
        kind=kind,
        cluster=draw(NAMES),
        host=draw(st.just("") | NAMES),
        serial=draw(st.just("") | NAMES),
        occurred=draw(st.none() | SECONDS),
        cleared=cleared if kind == "cleared" else None,
        cleared_by=by if kind == "cleared" else None,
        sent=draw(st.none() | SECONDS),
    )


@st.composite
def templates(draw: st.DrawFn) -> str:
    """Any order of the fields an observation needs, any separators."""
    names = draw(st.permutations(["dn", "id", "category", *OPTIONAL]))
    separators = [draw(st.sampled_from(SEPARATORS)) for _ in names[1:]]
    return "".join(chain(*zip([f"${{{name}}}" for name in names], [*separators, ""], strict=True)))


def written(moment: datetime | None, zone: timezone, style: str) -> str:
    """A time as Manager might write it."""
    if moment is None:
        return "--"
    if style == "ms":
        return str(int(moment.timestamp()) * 1000)
    return moment.isoformat() if style == "iso" else moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def answer_to(line: bytes | str, text: str, heartbeat: str = "") -> Observation | Heartbeat | Malformed:
    """What the parser makes of a line; any other exception fails the test."""
    try:
        return parse_line(line, Template(text), heartbeat=heartbeat)
    except Malformed as refusal:
        return refusal


@given(observations(), templates(), ZONES, st.sampled_from(["plain", "iso", "ms"]), st.sampled_from(["--", "1", "4"]))
def test_round_trip(seen: Observation, text: str, zone: timezone, style: str, level: str) -> None:
    """Every observation a report format can carry is read back from it whole."""
    body = Format(text).substitute(
        dn=seen.cluster,
        id=seen.alarm_id,
        name="Failed",
        serialNo=seen.serial or "--",
        category=CATEGORIES[seen.kind],
        occurTime=written(seen.occurred, zone, style),
        clearTime=written(seen.cleared, zone, style),
        isAutoClear="1",
        locationInfo=f"Source=prod;HostName={seen.host}" if seen.host else "",
        clearType=CLEAR_TYPES[seen.cleared_by],
        level=level,
        object="",
    )
    line = f"<134>1 {seen.sent.isoformat() if seen.sent else '-'} oms1 MRS Manager - - - {body}"
    assert parse_line(line.encode(), Template(text), zone=zone) == seen


@given(SECONDS, ZONES, st.timedeltas(timedelta(days=-180), timedelta(days=180)))
def test_yearless(occurred: datetime, zone: timezone, later: timedelta) -> None:
    """The year that RFC 3164 leaves out is found again, up to half a year from the alarm, in any zone."""
    sent = (occurred + later).replace(microsecond=0)
    local = sent.astimezone(zone)
    stamp = f"{MONTHS[local.month - 1]} {local.day:2} {local:%H:%M:%S}"
    line = f"<134>{stamp} oms1 MRS Manager: a|1|0|{occurred.isoformat()}"
    told = parse_line(line, Template("${dn}|${id}|${category}|${occurTime}"), zone=zone)
    assert told == Observation(alarm_id="1", kind="raised", cluster="a", occurred=occurred, sent=sent)


@settings(deadline=timedelta(seconds=1), max_examples=300)
@given(
    st.binary()
    | st.text()
    | st.builds(lambda head, fields: head + "|".join(fields), st.text(), st.lists(JUNK | st.text(), max_size=20))
    | st.builds(
        lambda stamp, fields: f"<134>{stamp} oms1 MRS Manager: " + "|".join(fields),
        st.from_regex("[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9-]{5}T[0-9:.]{8,20}Z?", fullmatch=True),
        st.lists(JUNK, min_size=14, max_size=16),
    ),
    st.sampled_from(["", "0", "still here", "|"]) | st.text(),
)
def test_any_line(line: bytes | str, heartbeat: str) -> None:
    """Any line at all becomes an observation, a heartbeat or a short, printable refusal, and nothing else."""
    answer = answer_to(line, DEFAULT_TEMPLATE, heartbeat)
    shown = str(answer) if isinstance(answer, Malformed) else ""
    assert (shown.isprintable(), len(shown) < 1000) == (True, True)


@settings(deadline=timedelta(seconds=1))
@given(
    st.sampled_from(["<1>", "<1>1 - - a - - ", "<1>1 - - a - - [", "<1>MRS Manager: ", "<1>MRS Manager: a|1|"]),
    st.sampled_from(["|", "x", " ", "[]", "[\\", "1 ", "MRS Manager", "MRS Manager[", "=,", "HostName=;"]),
    st.sampled_from([DEFAULT_TEMPLATE, "${dn}" + "|" * 480 + "-${id}" + "|" * 480 + "-${category}"]),
)
def test_bounded_time(start: str, piece: str, text: str) -> None:
    """The longest line of the most repetitive text is refused at once."""
    assert isinstance(answer_to((start + piece * 8192)[:8192], text), Malformed)


@given(st.text(st.sampled_from("${}|. -_az;")) | st.text())
def test_any_template(text: str) -> None:
    """Any text at all is a report format or refused with advice."""
    try:
        answer = Template(text).text
    except ValueError as refusal:
        answer = str(refusal)
    assert answer == text or answer.startswith("report format: ")


PIECES = st.sampled_from([b"<1>a\n", b"5 <1>bc", b"\n", b"\r\n", b"12 ", b"<", b"40 <", b"x" * 30, b"7", b"9999999 "])


@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 200), max_size=6))
def test_chunks(pieces: list[bytes], cuts: list[int]) -> None:
    """The lines found in a TCP stream, and those given up, do not depend on how the network cut it."""
    stream = b"".join(pieces)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    whole, cut = Frames(max_line=20), Frames(max_line=20)
    at_once = [*whole.feed(stream), whole.rest(cut=False)]
    in_parts = [line for start, end in pairwise(edges) for line in cut.feed(stream[start:end])]
    assert [*in_parts, cut.rest(cut=False)] == at_once

from datetime import UTC, datetime, timedelta, timezone
from itertools import chain, pairwise
from string import Template as Format

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.intake.framing import Counters, Frames
from deployments.intake.syslog import DEFAULT_TEMPLATE, Malformed, Observation, Template, parse_line

SEPARATORS = ["|", " | ", "||", " |.| ", "{|}"]
OPTIONAL = ["name", "serialNo", "occurTime", "clearTime", "isAutoClear", "locationInfo", "clearType", "level", "object"]
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="|$;,={}"), min_size=1)
NAMES = WORDS.filter(lambda word: word != "--")
SECONDS = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
CATEGORIES = {"raised": "0", "cleared": "1", "event": "2"}
CLEAR_TYPES = {None: "-1", "auto": "0", "person": "2"}
LEVELS = {None: "--", "critical": "1", "major": "2", "minor": "3", "warning": "4"}
JUNK = st.sampled_from(["", "|", "--", "0", "1", "-1", "12110", "HostName=a", ";", "<1>", "9" * 13, "[", "\\", "\x1b"])


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """Any observation that the default report format can carry."""
    hosts = st.fixed_dictionaries({"HostName": NAMES}, optional={"Source": WORDS, "RoleName": WORDS})
    location = draw(st.just(dict[str, str]()) | hosts)
    return Observation(
        alarm_id=draw(st.from_regex("[0-9]{1,10}", fullmatch=True)),
        kind=draw(st.sampled_from(["raised", "cleared", "event"])),
        cleared_by=draw(st.sampled_from([None, "auto", "person"])),
        cluster_name=draw(NAMES),
        serial=draw(st.none() | NAMES),
        occurred=draw(st.none() | SECONDS),
        cleared=draw(st.none() | SECONDS),
        host=location.get("HostName"),
        location=location,
        severity=draw(st.sampled_from([None, "critical", "major", "minor", "warning"])),
        name=draw(st.none() | NAMES),
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


def answer_to(line: bytes | str, text: str) -> Observation | Malformed:
    """What the parser makes of a line; any other exception fails the test."""
    try:
        return parse_line(line, Template(text))
    except Malformed as refusal:
        return refusal


@given(observations(), templates(), ZONES, st.sampled_from(["plain", "iso", "ms"]))
def test_round_trip(seen: Observation, text: str, zone: timezone, style: str) -> None:
    """Every observation a report format can carry is read back from it whole."""
    body = Format(text).substitute(
        dn=seen.cluster_name,
        id=seen.alarm_id,
        name=seen.name or "",
        serialNo=seen.serial or "--",
        category=CATEGORIES[seen.kind],
        occurTime=written(seen.occurred, zone, style),
        clearTime=written(seen.cleared, zone, style),
        isAutoClear="1",
        locationInfo=";".join(f"{key}={value}" for key, value in seen.location.items()),
        clearType=CLEAR_TYPES[seen.cleared_by],
        level=LEVELS[seen.severity],
        object="",
    )
    assert parse_line(f"<134>oms1 MRS Manager: {body}".encode(), Template(text), zone=zone) == seen


@settings(deadline=timedelta(seconds=1), max_examples=300)
@given(
    st.binary()
    | st.text()
    | st.builds(lambda head, fields: head + "|".join(fields), st.text(), st.lists(JUNK | st.text(), max_size=20))
    | st.builds(lambda fields: "<134>MRS Manager: " + "|".join(fields), st.lists(JUNK, min_size=14, max_size=16))
)
def test_any_line(line: bytes | str) -> None:
    """Any line at all becomes an observation or a short, printable refusal, and nothing else."""
    answer = answer_to(line, DEFAULT_TEMPLATE)
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
    """The lines found in a TCP stream, and the counts, do not depend on how the network cut it."""
    stream = b"".join(pieces)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    whole, cut = Frames(once := Counters(), max_line=20), Frames(many := Counters(), max_line=20)
    at_once = [*whole.feed(stream), whole.rest(cut=False)]
    in_parts = [line for start, end in pairwise(edges) for line in cut.feed(stream[start:end])]
    assert ([*in_parts, cut.rest(cut=False)], many) == (at_once, once)

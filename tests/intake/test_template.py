import pytest

from deployments.intake.syslog import DEFAULT_TEMPLATE, Malformed, Template, parse_line
from tasks.models import Observation


@pytest.mark.parametrize(
    ("text", "body", "expected"),
    [
        ("${dn}|${id}|${category}", "a|1|0|x|y", {"dn": "a", "id": "1", "category": "0|x|y"}),
        ("${dn} - ${id} - ${category}", "a-b - 1 - 0", {"dn": "a-b", "id": "1", "category": "0"}),
        ("ALM {${category}} $${id} in ${dn}.", "ALM {0} $1 in a.b.", {"category": "0", "id": "1", "dn": "a.b"}),
        ("${dn}|${id}|${category}", "||", {"dn": "", "id": "", "category": ""}),
    ],
)
def test_parse(text: str, body: str, expected: dict[str, str]) -> None:
    """A field ends where the separator after it first occurs, and the last field takes the rest."""
    assert Template(text).parse(body) == expected


@pytest.mark.parametrize(
    ("text", "body", "expected"),
    [
        ("A ${dn}|${id}|${category}", "a|1|0", "unknown start in the body: expected 'A ' first, got 'a|1|0'"),
        ("${dn}|${id}|${category}.", "a|1|0", "no end in field category: expected '.' after it, got '0'"),
        ("${dn}|${id}|${category}", "a|1", "no end in field id: expected '|' after it, got '1'"),
        (
            "${dn}|${id}|${category}",
            "|" * 9000,
            f"too much text in the body: expected at most 8192 characters, got '{'|' * 57}'...",
        ),
    ],
)
def test_parse_refuses(text: str, body: str, expected: str) -> None:
    """A body that does not follow the report format is refused, and the refusal names the place."""
    with pytest.raises(Malformed) as refusal:
        Template(text).parse(body)
    assert str(refusal.value) == expected


KNOWN = (
    "dn, id, name, serialNo, category, occurTime, clearTime, isAutoClear, locationInfo, clearType, level, cause, "
    "additionalInfo, object"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${dn}|${ID}|${category}", f"field ${{ID}} is unknown; use {KNOWN}"),
        ("${dn}${id}|${category}", "nothing separates ${dn} from ${id}; put a separator such as | between them"),
        ("${dn}|${id}|${id}|${category}", "field ${id} appears more than once; keep one"),
        ("${dn}|${category}", "${id} is missing; add it"),
        ("", "${dn} is missing; add it"),
        ("${dn}|${id}|${category", "a '${' opens no field; write fields as ${name}"),
        (
            "${dn};${id};${category}",
            "';' is not allowed; use letters, digits, space and _ . - | $ { }",
        ),
        ("${dn}|${id}|${category}" + "x" * 1002, "it has 1025 characters; shorten it to 1024"),
    ],
)
def test_refused_templates(text: str, expected: str) -> None:
    """A report format that Manager would not take, or nobody could read back, says what to change."""
    with pytest.raises(ValueError, match=r"^report format: ") as refusal:
        Template(text)
    assert str(refusal.value) == f"report format: {expected}"


def test_longest_template() -> None:
    """A report format of the published length is accepted."""
    assert Template(DEFAULT_TEMPLATE + "x" * (1024 - len(DEFAULT_TEMPLATE))).names == tuple(KNOWN.split(", "))


def test_short_template() -> None:
    """A report format of the three necessary fields gives an observation without the rest."""
    assert parse_line("<134>MRS Manager: prod|12110|1", Template("${dn}|${id}|${category}")) == Observation(
        alarm_id="12110", kind="cleared", cluster="prod"
    )

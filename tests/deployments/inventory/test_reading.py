"""YAML with its lines: what it says, and where."""

import pytest

from deployments.inventory.reading import Document, Problem, parse


def test_every_key_and_element_has_its_line() -> None:
    """The values are plain, and each is known by the keys that lead to it."""
    text = "# who\na:\n  b: 1\n  c: [x, true]\n\n'd':\n- 2\n- e: ~\n"
    assert parse(text) == Document(
        content={"a": {"b": 1, "c": ["x", True]}, "d": [2, {"e": None}]},
        lines={
            ("a",): 2,
            ("a", "b"): 3,
            ("a", "c"): 4,
            ("a", "c", 0): 4,
            ("a", "c", 1): 4,
            ("d",): 6,
            ("d", 0): 7,
            ("d", 1): 8,
            ("d", 1, "e"): 8,
        },
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_a_file_may_say_nothing(text: str) -> None:
    """It has no content and no problem."""
    assert parse(text) == Document()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: [1\nc: 2", Problem(3, "", "this is no YAML: did not find expected ',' or ']'")),
        ("a:\n\tb: 1", Problem(2, "", "this is no YAML: found character that cannot start any token")),
        ("a: 1\n---\nb: 2", Problem(2, "", "this is no YAML: but found another document")),
        ("a: *b", Problem(1, "", "this is no YAML: found undefined alias")),
        (
            "a: \x01",
            Problem(1, "", "this is no YAML: unacceptable character #x0001: control characters are not allowed"),
        ),
        ("- 1", Problem(1, "", "this is no mapping of keys to values")),
        ("a: 1\n\na: 2", Problem(3, "a", "is there already, in line 1")),
        ("a:\n  b: {c: 1,\n    c: 2}", Problem(3, "a.b.c", "is there already, in line 2")),
        (
            "a: &x\n  b: 1\nc:\n  d: *x",
            Problem(4, "c.d", "references (*) are not read here: write it out, or into the defaults"),
        ),
        (
            "a: &x [*x]",
            Problem(1, "a.0", "references (*) are not read here: write it out, or into the defaults"),
        ),
        (
            "a: !!python/object/apply:os.system [x]\nb: !env SECRET",
            Problem(2, "b", "!env is not read here: write plain text, numbers, true or false"),
        ),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(text: str, problem: Problem) -> None:
    """Broken YAML, keys given twice, references and tags are problems, and nothing is carried out."""
    assert parse(text).problems == [problem]


def test_dates_stay_text() -> None:
    """What looks like a date is what was written, also where there is no such day."""
    assert parse("a: [2026-12-24, 2026-13-45]").content == {"a": ["2026-12-24", "2026-13-45"]}

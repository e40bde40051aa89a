"""The schema for editors: the published file is the current one, and it judges as the program does."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from deployments.inventory.entries import schema
from deployments.inventory.reading import parse
from tests.deployments.inventory.test_inventory import EXAMPLE, ONE

PUBLISHED = EXAMPLE.with_name("clusters.schema.json")


def faults(text: str) -> list[str]:
    """Where the schema finds something wrong."""
    found = Draft202012Validator(json.loads(PUBLISHED.read_text())).iter_errors(parse(text).content)
    return sorted(each.json_path for each in found)


def test_the_published_schema_is_the_current_one() -> None:
    """`runbooks clusters schema > deployments/clusters.schema.json` would change nothing."""
    assert json.loads(PUBLISHED.read_text()) == schema()
    Draft202012Validator.check_schema(schema())


def test_the_example_names_it_and_keeps_to_it() -> None:
    """The file that is shipped has the line for editors first, and the schema finds nothing wrong in it."""
    text = EXAMPLE.read_text()
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={PUBLISHED.name}"
    assert faults(text) == []


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("", []),
        ("    mod: auto", ["$.clusters.a"]),
        ("    mode: atuo", ["$.clusters.a.mode"]),
        ("    four_eyes: 'yes'", ["$.clusters.a.four_eyes"]),
        ("    manager: {url: x, password: y}", ["$.clusters.a.manager"]),
        ("  B_1: {}", ["$.clusters"]),
        ("cluster: {}", ["$"]),
    ],
)
def test_it_finds_what_an_editor_should_show(more: str, where: list[str]) -> None:
    """Unknown keys, wrong words and kinds, and names that no block can have."""
    text = ONE.replace("    manager: {url: 'https://10.0.0.1/x'}\n", "") if "manager" in more else ONE
    assert faults(f"{text}{more}\n") == where


def test_every_field_explains_itself() -> None:
    """A sentence per field, for whoever writes the file in an editor."""
    kinds: dict[str, Any] = {**schema()["$defs"], "": schema()}
    fields = {(kind, name): field for kind, it in kinds.items() for name, field in it.get("properties", {}).items()}
    assert [place for place, field in fields.items() if not field.get("description")] == []

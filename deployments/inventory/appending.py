"""Adding an entry to a file: as text at the end of its clusters, so that everything else in it stays as it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deployments.inventory.inventory import inventory_of
from tasks.errors import ConfigurationError

SCHEMA_LINE = "# yaml-language-server: $schema=clusters.schema.json"
STEP = 2  # spaces


def with_entry(path: Path, text: str, name: str, entry: Mapping[str, Any]) -> str:
    """The file's text with one more cluster.

    Raises:
        WrongInventory: with that entry, or already without it, something is wrong in the file.
        ConfigurationError: where the entry must stand cannot be told, or others would change by it; shows it.
    """
    added = _added(path, text, name, entry)
    before = inventory_of(path, text).clusters if text.strip() else {}
    after = inventory_of(path, added).clusters
    if {each: after[each] for each in after if each != name} != before:
        raise _by_hand(path, name, entry)
    return added


def new_file(cloud: str, login: str) -> str:
    """The text of a file without clusters, which names one cloud and one login."""
    sections = {"clouds": {cloud: {"read": cloud}}, "logins": {login: {"read": login}}}
    return f"{SCHEMA_LINE}\n{_written(sections, 0)}clusters:\n"


def _added(path: Path, text: str, name: str, entry: Mapping[str, Any]) -> str:
    lines = text.splitlines(keepends=True)
    root = yaml.CSafeLoader(text).get_single_node()
    sections = root.value if isinstance(root, yaml.MappingNode) else []
    found = next(((key, value) for key, value in sections if key.value == "clusters"), None)
    if found is None:
        return _ended(text) + "clusters:\n" + _written({name: entry}, STEP)
    key, value = found
    if not value.value or not isinstance(value, yaml.MappingNode):  # nothing stands below it yet
        at, line = key.start_mark.line, lines[key.start_mark.line]
        head = [line] if value.start_mark.index == value.end_mark.index else ["clusters:"]
        return "".join([*lines[:at], *map(_ended, head), _written({name: entry}, STEP), *lines[at + 1 :]])
    if value.flow_style:
        raise _by_hand(path, name, entry)
    at, column = value.end_mark.line + (value.end_mark.column > 0), value.start_mark.column
    while at and _of_what_follows(lines[at - 1] if at <= len(lines) else "", column):
        at -= 1
    return "".join([*map(_ended, lines[:at]), _written({name: entry}, column), *lines[at:]])


def _by_hand(path: Path, name: str, entry: Mapping[str, Any]) -> ConfigurationError:
    return ConfigurationError(f"{path}: write this entry below clusters: yourself\n{_written({name: entry}, STEP)}")


def _of_what_follows(line: str, column: int) -> bool:
    """An empty line, or a comment further left than the entries: of the next section, or of the file's end."""
    bare = line.strip()
    return not bare or (bare.startswith("#") and len(line) - len(line.lstrip()) < column)


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _written(content: Mapping[str, Any], column: int) -> str:
    text: str = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=1000)
    return "".join(f"{' ' * column}{line}\n" for line in text.splitlines())

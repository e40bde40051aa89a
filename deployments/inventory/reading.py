"""YAML, read with the line of every key, so that whatever is wrong can be told where it stands: all of it at once."""

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import yaml

Keys = tuple[str | int, ...]
NOTHING = "tag:yaml.org,2002:null"


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong in the file: the line, the keys that lead there, one clause."""

    line: int
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


@dataclass
class Document:
    """What a file says, the line of each key and list element by the keys that lead to it, and what is wrong in it."""

    content: dict[str, Any] = field(default_factory=dict)
    lines: dict[Keys, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, keys: Keys, what: str) -> Problem:
        """What is wrong there, with the line of the nearest key that stands in the file."""
        lengths = range(len(keys), 0, -1)
        line = next((self.lines[keys[:length]] for length in lengths if keys[:length] in self.lines), 1)
        return Problem(line, ".".join(map(str, keys)), what)


def parse(text: str) -> Document:
    """A mapping in YAML as plain dicts, lists and scalars. What cannot be read is a problem, never an exception."""
    found = Document()
    try:
        loader = yaml.CSafeLoader(text)
        root = loader.get_single_node()
        if isinstance(root, yaml.MappingNode):
            found.content = _Walk(loader, found).value(root, ())
        elif root is not None and root.tag != NOTHING:
            found.problems.append(Problem(root.start_mark.line + 1, "", "this is no mapping of keys to values"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        found.problems.append(Problem(mark.line + 1 if mark else 1, "", f"this is no YAML: {error.problem}"))
    except yaml.YAMLError as error:
        found.problems.append(Problem(1, "", f"this is no YAML: {str(error).splitlines()[0]}"))
    return found


class _Walk:
    """From nodes to values; a key that is there already, a reference and an unknown tag are problems."""

    def __init__(self, loader: Any, document: Document) -> None:
        self._loader, self._document = loader, document
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, keys: Keys) -> Any:
        if id(node) in self._seen:  # the same node again, or one that holds itself
            what = "references (*) are not read here: write it out, or into the defaults"
            self._document.problems.append(self._document.problem(keys, what))
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys)
        if isinstance(node, yaml.SequenceNode):
            for number, each in enumerate(node.value):
                self._document.lines[*keys, number] = each.start_mark.line + 1
            return [self.value(each, (*keys, number)) for number, each in enumerate(node.value)]
        try:
            value = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
            if isinstance(error, yaml.YAMLError):
                what = f"{node.tag} is not read here: write plain text, numbers, true or false"
                self._document.problems.append(self._document.problem(keys, what))
            return node.value
        return node.value if isinstance(value, date) else value

    def _mapping(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in found:
                first = self._document.lines[*keys, name]
                where = ".".join(map(str, (*keys, name)))
                what = f"is there already, in line {first}"
                self._document.problems.append(Problem(key.start_mark.line + 1, where, what))
                continue
            self._document.lines[*keys, name] = key.start_mark.line + 1
            found[name] = self.value(value, (*keys, name))
        return found

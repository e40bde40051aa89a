"""The clusters a file declares: each with what it takes from the defaults, and checked against all the others."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deployments.inventory.entries import (
    Credentials,
    Entry,
    File,
    WholeAddress,
    WholeEntry,
    WholeFile,
    WholeShared,
)
from deployments.inventory.reading import Document, Keys, Problem, parse
from tasks.errors import ConfigurationError
from tasks.fleet import SELECTORS
from tasks.models import few

CHANGING = "-changing"  # the Manager block for changes is called like the cluster, with this at its end
SECRETS = ("password", "user", "access_key", "secret_key", "security_token", "token", "ak", "sk")


@dataclass(frozen=True)
class Inventory:
    """A file without problems of its own: credentials, and the clusters, whole, by the names of their blocks."""

    path: Path
    document: Document
    clouds: Mapping[str, Credentials]
    logins: Mapping[str, Credentials]
    clusters: Mapping[str, Entry]

    def says(self, name: str, key: str) -> bool:
        """Whether a cluster's entry or the defaults say something there, be it wrong."""
        lines, keys = self.document.lines, key.split(".")
        return ("clusters", name, *keys) in lines or ("defaults", *keys) in lines

    def problem(self, name: str, key: str, what: str) -> Problem:
        """What is wrong with a cluster's entry, or with the default that it takes this from."""
        keys: Keys = ("clusters", name, *key.split("."))
        by_default = keys not in self.document.lines and self.says(name, key)
        return self.document.problem(("defaults", *key.split(".")) if by_default else keys, what)


class WrongInventory(ConfigurationError):
    """A file with problems; each is told in a line of its own."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.lines = told(path, problems)
        super().__init__("\n".join(self.lines))


def told(path: Path, problems: Sequence[Problem]) -> list[str]:
    """A line for each, as FILE:LINE: what, in the file's order."""
    return [f"{path}:{problem.line}: {problem}" for problem in sorted(set(problems))]


def source_of(name: str, entry: Entry) -> str:
    """What alarms call a cluster, as far as its entry says."""
    return entry.source or entry.name_in_cloud or name


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint at what was meant, or at what there is."""
    near = get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"there is {few(sorted(known)) or 'none'}"


def read_inventory(path: Path) -> Inventory:
    """The inventory in a file.

    Raises:
        WrongInventory: with everything that is wrong in it.
        OSError: it cannot be read.
    """
    try:
        return inventory_of(path, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise WrongInventory(path, [Problem(1, "", f"this is no UTF-8 text: {error.reason}")]) from error


def inventory_of(path: Path, text: str) -> Inventory:
    """The inventory in a text that is, or is to be, in the file of that path.

    Raises:
        WrongInventory: with everything that is wrong in it.
    """
    document = parse(text)
    problems = list(document.problems)
    file = _validated(document, problems)
    defaults = file.defaults.model_dump(exclude_unset=True)
    clusters: dict[str, Entry] = {
        name: WholeEntry.model_validate(_over(defaults, entry.model_dump(exclude_unset=True)))
        for name, entry in file.clusters.items()
    }
    inventory = Inventory(path, document, file.clouds, file.logins, clusters)
    named = {
        section: [str(keys[1]) for keys in document.lines if len(keys) == 2 and keys[0] == section]
        for section in ("clouds", "logins")
    }
    problems += [problem for name in clusters for problem in _alone(inventory, name, named)]
    problems += _twice(inventory)
    if problems:
        raise WrongInventory(path, problems)
    return inventory


def _over(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A cluster's own over the defaults: mappings are joined, everything else is replaced."""
    joined = {
        key: _over(defaults[key], value) if isinstance(value, dict) and isinstance(defaults.get(key), dict) else value
        for key, value in own.items()
    }
    return {**defaults, **joined}


def _validated(document: Document, problems: list[Problem]) -> File:
    """What of the file can be used, all wrong entries left out and told among the problems."""
    content = {section: {} if value is None else deepcopy(value) for section, value in document.content.items()}
    if isinstance(clusters := content.get("clusters"), dict):
        content["clusters"] = {name: {} if entry is None else entry for name, entry in clusters.items()}
    try:
        return WholeFile.model_validate(content)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    for fault in faults:
        keys = tuple(key for key in fault["loc"] if key != "[key]")
        problems.append(document.problem(keys, _what(keys, fault)))
        _cut(content, keys[: 3 if keys[0] == "clusters" else 2])
    return WholeFile.model_validate(content)


def _cut(content: dict[str, Any], keys: Keys) -> None:
    """Take out what is wrong: a section, what a section holds, or a key of a cluster."""
    *above, last = map(str, keys)
    for key in above:
        inner = content.get(key)
        if not isinstance(inner, dict):
            content.pop(key, None)
            return
        content = inner
    content.pop(last, None)


def _what(keys: Keys, fault: ErrorDetails) -> str:
    """One clause about what pydantic found there."""
    match fault["type"]:
        case "extra_forbidden" if str(keys[-1]).lower() in SECRETS:
            return "secrets do not belong here: name the block that holds them, in clouds or logins"
        case "extra_forbidden":
            return f"unknown key, {nearest(str(keys[-1]), list(_model_at(keys[:-1]).model_fields))}"
        case "literal_error" if isinstance(fault["input"], str):
            words = fault["ctx"]["expected"].split("'")[1::2]
            return f"{fault['input']!r} is none of {', '.join(words)}"
        case "missing":
            return "is missing"
        case "string_type":
            return "must be text: put it into quotes"
        case "string_pattern_mismatch":
            return "only letters, digits and dashes, as in the name of a block (there without capitals)"
        case "model_type" | "dict_type" | "list_type":
            return {"list_type": "must be a list"}.get(fault["type"], "must be a mapping of keys to values")
    return fault["msg"].removeprefix("Value error, ").replace("Input should", "should")


def _model_at(keys: Keys) -> type[BaseModel]:
    match keys:
        case ():
            return WholeFile
        case ("clouds" | "logins", _):
            return Credentials
        case ("defaults",):
            return WholeShared
        case ("clusters", _):
            return WholeEntry
    return WholeAddress


def _alone(inventory: Inventory, name: str, named: Mapping[str, list[str]]) -> Iterator[Problem]:
    """What is wrong in one entry beyond the kind of its values; what is wrong there already is not told twice.

    Args:
        named: the names in the sections `clouds` and `logins`, of wrong ones too.
    """
    entry = inventory.clusters[name]
    for key, section in (("cloud", "clouds"), ("login", "logins")):
        chosen, known = getattr(entry, key), named[section]
        if chosen and chosen not in known:
            yield inventory.problem(name, key, f"{chosen!r} is none of {section}, {nearest(chosen, known)}")
        elif not chosen and not inventory.says(name, key):
            yield inventory.problem(name, key, f"is missing: name one of {section} here or in the defaults")
    if not entry.manager.url and not inventory.says(name, "manager.url"):
        yield inventory.problem(name, "manager.url", "is missing: without its Manager a cluster cannot be looked at")
    settings = entry.settings()
    for label in settings["labels"]:
        if label in SELECTORS or "=" in label or label != label.strip():
            what = f"no name for a label: {', '.join(SELECTORS)} have a meaning of their own, and = ends a name"
            yield inventory.problem(name, f"labels.{label}", what)
    if settings["on_unbound"] == "rebind" and not settings["agency"]:
        yield inventory.problem(name, "on_unbound", "rebind needs the name of an agency to bind")
    login = inventory.logins.get(entry.login)
    if login and login.change and f"{name}{CHANGING}" in inventory.clusters:
        what = f"both it and its login for changes need a Manager block of that name: rename it, or {name}"
        yield inventory.document.problem(("clusters", f"{name}{CHANGING}"), what)


def _twice(inventory: Inventory) -> Iterator[Problem]:
    """What two entries must not have in common, because one cluster would be two, or a name would mean two."""
    seen: dict[Hashable, str] = {}
    for name, entry in inventory.clusters.items():
        in_cloud = "" if entry.cluster_id else entry.name_in_cloud or name
        manager = entry.manager
        claims: dict[str, Hashable] = {
            "cluster_id": entry.cluster_id.lower(),
            "name_in_cloud": in_cloud and (entry.cloud, in_cloud),
            "source": source_of(name, entry),
            "manager.url": manager.url and (manager.url.rstrip("/"), manager.cluster_number),
        }
        for key, value in claims.items():
            if not value:
                continue
            first = seen.setdefault((key, value), name)
            if first != name:
                line = inventory.problem(first, key, "").line
                what = f"is the same as of {first}, in line {line}"
                yield inventory.document.problem(("clusters", name, *key.split(".")), what)

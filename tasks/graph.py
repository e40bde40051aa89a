"""The page's graph, and the ways that the hosts of a run took through it, as a mermaid flowchart."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import NamedTuple

ANSWERS = {"y": "yes", "n": "no", "": "next"}
ENDS = ("END", "ESCALATE")
TAKEN = "stroke:#2f6feb,stroke-width:4px"


class Edge(NamedTuple):
    """From a step, by an answer (`yes`, `no`; `next` where nothing is asked), to a step or one of the page's ends."""

    start: str
    answer: str
    target: str


@dataclass(frozen=True)
class Graph:
    """An alarm page as a graph.

    Attributes:
        steps: number -> what the page tells to do or asks there.
        edges: every way from one to the next.
    """

    steps: Mapping[str, str]
    edges: Sequence[Edge]

    def between(self, start: str, answer: str, target: str) -> list[Edge]:
        """The edges from a step, by an answer, to a step, past steps that ask nothing; empty: none lead there."""
        found: list[Edge] = []
        while edge := next((each for each in self.edges if each[:2] == (start, answer)), None):
            found.append(edge)
            if edge.target == target:
                return found
            start, answer = edge.target, "next"
        return []


@dataclass(frozen=True)
class Way:
    """One host's way through the page: its trace without the last word, that word, and at which step it was said."""

    steps: Sequence[str]
    word: str
    at: str


def read_graph(file: Traversable) -> Graph:
    """The graph of a page, from its file in `flows/procedures/`."""
    told = json.loads(file.read_text())
    return Graph(told["steps"], [Edge(*edge) for edge in told["edges"]])


def taken(graph: Graph, ways: Iterable[Way]) -> Counter[Edge]:
    """How many hosts went each way; who left the page early took an edge it does not have, from there to the word."""
    found: Counter[Edge] = Counter()
    for way in ways:
        numbers = [step.rstrip("yn") for step in way.steps]
        early = way.word not in ENDS
        at = way.at if way.at in graph.steps else numbers[-1]
        for step, number, target in zip(way.steps, numbers, [*numbers[1:], at if early else way.word], strict=True):
            found.update(graph.between(number, ANSWERS[step.removeprefix(number)], target))
        if early:
            found[Edge(at, "", way.word)] += 1
    return found


def flowchart(graph: Graph, ways: Sequence[Way]) -> str:
    """The graph in mermaid's language; edges that were taken are thick, and of several hosts say how many took them.

    Source: mermaid, "Flowcharts - Basic Syntax".
    """
    went = taken(graph, ways)
    edges = [*graph.edges, *(edge for edge in went if edge not in graph.edges)]
    lines = ["flowchart TD"]
    for number, text in graph.steps.items():
        asks = any(edge.answer == "yes" for edge in graph.edges if edge.start == number)
        words = f"{number}. {text}".replace('"', "'")  # it would end the box
        lines.append(f'  s{number}{{{{"{words}"}}}}' if asks else f'  s{number}["{words}"]')
    for edge in edges:
        count = went[edge] if len(ways) > 1 else 0
        hosts = f"{count} hosts" if count > 1 else "1 host" if count else ""
        said = ", ".join(filter(None, (edge.answer.removeprefix("next"), hosts)))
        label = f'|"{said}"|' if said else ""
        target = f"s{edge.target}" if edge.target in graph.steps else _word(edge)
        lines.append(f"  s{edge.start} {'-->' if edge.answer else '-.->'}{label} {target}")
    if thick := [str(n) for n, edge in enumerate(edges) if went[edge]]:
        lines.append(f"  linkStyle {','.join(thick)} {TAKEN}")
    return "\n".join(lines)


def _word(edge: Edge) -> str:
    """The box of a last word: one for each of the page's ends, and one for each step at which the page was left."""
    at = "" if edge.target in ENDS else f"_{edge.start}"
    return f'w{at}_{edge.target.replace("-", "_")}(["{edge.target}"])'

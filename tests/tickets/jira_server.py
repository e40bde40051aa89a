"""Jira Cloud as a server of the tests' own: it refuses whatever Jira's published schema does not allow."""

import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.tickets.servers import Kept, Store

SCHEMA = json.loads(Path(__file__).with_name("jira_schema.json").read_text())
PROJECT = "OPS"
# Atlassian Document Format, version 1, as far as it is used: what a node is, and what it may hold.
INLINE, BLOCKS = {"text", "hardBreak"}, {"paragraph", "heading", "codeBlock"}


def wrong(request: Request, body: Any) -> list[str]:
    """What the published schema has against a request."""
    for path, operations in SCHEMA["paths"].items():
        operation = operations.get(request.method.lower())
        if operation and re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), request.url.path):
            return [*_wrong_query(request, operation["parameters"]), *_wrong_body(operation.get("body"), body)]
    return [f"there is no {request.method} {request.url.path}"]


def _wrong_query(request: Request, known: list[dict[str, Any]]) -> list[str]:
    schemas = {each["name"]: each["schema"] for each in known}
    found = [f"unknown parameter {name}" for name in request.query_params if name not in schemas]
    for name, value in request.query_params.items():
        kind = schemas.get(name, {})
        if kind.get("type") == "integer" and not value.isdecimal():
            found.append(f"{name} is no integer")
        if "enum" in kind and value not in kind["enum"]:
            found.append(f"{name} is not {value}")
    return found


def _wrong_body(name: str | None, body: Any) -> list[str]:
    if name is None:
        return []
    check = Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": SCHEMA["components"]})
    return [error.message for error in check.iter_errors(body)]


def words(document: Any) -> str:
    """The text of a document; fails where it is none."""
    assert (document["type"], document["version"], set(document)) == ("doc", 1, {"type", "version", "content"})
    blocks = []
    for block in document["content"]:
        assert block["type"] in BLOCKS
        assert {part["type"] for part in block["content"]} <= INLINE
        assert all(part["text"] for part in block["content"] if part["type"] == "text")
        blocks.append("".join(part.get("text", "\n") for part in block["content"]))
    return "\n\n".join(blocks)


def jira_app(store: Store, *, links: bool = True, transitions: bool = True) -> Starlette:
    """A Jira with one project. `links`, `transitions`: whether it has link types, and ways to other statuses."""

    def checked(body: Any, request: Request) -> Response | None:
        faults = wrong(request, body)
        return JSONResponse({"errorMessages": faults, "errors": {}}, 400) if faults else None

    async def handle(request: Request) -> Response:
        body = await request.json() if request.method == "POST" else None
        if refused := checked(body, request):
            return refused
        return answer(request, body)

    def answer(request: Request, body: Any) -> Response:
        path = request.url.path.removeprefix("/rest/api/3/")
        if path == "search/jql":
            (mark,) = re.findall(r'^labels = "([\w-]+)" ORDER BY created ASC$', body["jql"])
            return JSONResponse({"issues": [issue(each) for each in store.search(mark)], "isLast": True})
        if path == "issue":
            return made(body["fields"])
        if path == "issueLink":
            if not links:
                return JSONResponse({"errorMessages": ["No issue link type with name 'Relates' found."]}, 404)
            kept = store.get(body["inwardIssue"]["key"])
            kept.links.append(body["outwardIssue"]["key"])
            return Response(status_code=201)
        _, key, *what = path.split("/")
        return of_an_issue(store.get(key), what, request, body)

    def made(fields: Any) -> Response:
        if set(fields) != {"project", "issuetype", "summary", "description", "labels"}:
            return JSONResponse({"errorMessages": [], "errors": {"fields": "cannot be set"}}, 400)
        assert (fields["project"], len(fields["summary"]) <= 255) == ({"key": PROJECT}, True)
        _, mark = fields["labels"]
        return JSONResponse(issue(store.make(mark, fields["summary"], words(fields["description"]))), 201)

    def of_an_issue(kept: Kept, what: list[str], request: Request, body: Any) -> Response:
        match (request.method, *what):
            case ("GET",):
                linked = [{"outwardIssue": {"key": other}} for other in kept.links]
                return JSONResponse({**issue(kept), "fields": {"status": status(kept.status), "issuelinks": linked}})
            case ("GET", "comment"):
                return comments(kept, request)
            case ("POST", "comment"):
                text, _, marker = words(body["body"]).rpartition("\n\n")
                kept.comments.append((marker, text))
                return JSONResponse({"id": str(len(kept.comments))}, 201)
            case ("GET", "transitions"):
                ways = [{"id": name, "name": name, "to": status(name)} for name in ("open", "resolved")]
                return JSONResponse({"transitions": ways if transitions else []})
            case ("POST", "transitions"):
                kept.status = body["transition"]["id"]
                return Response(status_code=204)
        return Response(status_code=404)

    def comments(kept: Kept, request: Request) -> Response:
        start, most = int(request.query_params["startAt"]), int(request.query_params["maxResults"])
        newest = [
            {"id": str(n), "body": {"content": [{"content": [{"text": marker}]}]}}
            for n, (marker, _) in reversed(list(enumerate(kept.comments)))
        ]
        page = newest[start : start + most]
        return JSONResponse({"comments": page, "startAt": start, "maxResults": most, "total": len(newest)})

    def issue(kept: Kept) -> dict[str, Any]:
        return {"id": kept.id, "key": f"{PROJECT}-{kept.id}", "self": "https://example.atlassian.net"}

    def status(name: str) -> dict[str, Any]:
        key = {"new": "new", "open": "indeterminate", "resolved": "done"}[name]
        return {"name": name, "statusCategory": {"key": key}}

    return Starlette(routes=[Route("/{path:path}", handle, methods=["GET", "POST", "PUT", "DELETE"])])

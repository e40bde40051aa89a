"""Ticket systems as servers of the tests' own, with switches for what may go wrong on the way to them."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class HandClock:
    """Time that is moved by hand; work that is put off is done when its time has come."""

    def __init__(self) -> None:
        self.time = datetime(2026, 7, 1, 8, tzinfo=UTC)
        self._later: list[tuple[datetime, Callable[[], Any]]] = []

    def now(self) -> datetime:
        """The time."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Move at once."""
        await self.move(seconds)

    def put_off(self, seconds: float, work: Callable[[], Any]) -> None:
        """Do this, but later."""
        self._later.append((self.time + timedelta(seconds=seconds), work))

    async def move(self, seconds: float) -> None:
        """So much time goes by."""
        until = self.time + timedelta(seconds=seconds)
        while due := sorted((each for each in self._later if each[0] <= until), key=lambda each: each[0]):
            self._later.remove(due[0])
            self.time = due[0][0]
            await due[0][1]()
        self.time = until


@dataclass
class Kept:
    """A ticket as its system keeps it. `searchable` is when a search finds it."""

    id: str
    mark: str
    title: str
    text: str
    searchable: datetime
    status: str = "new"
    comments: list[tuple[str, str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


class Store:
    """What a ticket system holds."""

    def __init__(self, clock: HandClock, *, lag: Callable[[], float] = lambda: 0.0) -> None:
        self.clock, self.lag = clock, lag
        self.tickets: list[Kept] = []

    def make(self, mark: str, title: str, text: str, links: list[str] | None = None) -> Kept:
        """One more ticket."""
        searchable = self.clock.now() + timedelta(seconds=self.lag())
        kept = Kept(str(len(self.tickets) + 1), mark, title, text, searchable, links=links or [])
        self.tickets.append(kept)
        return kept

    def search(self, mark: str) -> list[Kept]:
        """Those with the mark, as far as a search finds them."""
        return [each for each in self.tickets if each.mark == mark and each.searchable <= self.clock.now()]

    def get(self, id_: str) -> Kept:
        """The ticket of this id."""
        return self.tickets[int(id_.rpartition("-")[2]) - 1]


def request_tracker_app(store: Store) -> Starlette:
    """What of RT's REST 2 interface is used here, as RT 5 answers it."""

    async def search(request: Request) -> Response:
        (mark,) = re.findall(r"^RefersTo = 'urn:([\w-]+)'$", request.query_params["query"])
        return hits([each.id for each in store.search(mark)])

    def hits(ids: list[str]) -> Response:
        items = [{"type": "ticket", "id": id_} for id_ in ids]
        return JSONResponse({"items": items, "total": len(items), "count": len(items), "page": 1, "pages": 1})

    async def make(request: Request) -> Response:
        body = await request.json()
        mark, *links = body["RefersTo"]
        links += [body["MemberOf"]] if "MemberOf" in body else []
        kept = store.make(mark.removeprefix("urn:"), body["Subject"], body["Content"], links)
        return JSONResponse({"id": kept.id, "type": "ticket"}, 201)

    async def attachments(request: Request) -> Response:
        (wanted,) = json.loads(request.query_params["query"])
        return hits([each.id for each in store.tickets for subject, _ in each.comments if subject == wanted["value"]])

    async def comment(request: Request) -> Response:
        body = await request.json()
        store.get(request.path_params["id"]).comments.append((body["Subject"], body["Content"]))
        return JSONResponse(["Comments added"], 201)

    async def read(request: Request) -> Response:
        kept = store.get(request.path_params["id"])
        return JSONResponse({"id": int(kept.id), "Status": kept.status})

    async def change(request: Request) -> Response:
        store.get(request.path_params["id"]).status = (await request.json())["Status"]
        return JSONResponse(["Status changed"])

    root = "/REST/2.0"
    return Starlette(
        routes=[
            Route(f"{root}/tickets", search),
            Route(f"{root}/ticket", make, methods=["POST"]),
            Route(f"{root}/attachments", attachments),
            Route(f"{root}/ticket/{{id}}/comment", comment, methods=["POST"]),
            Route(f"{root}/ticket/{{id}}", read, methods=["GET"]),
            Route(f"{root}/ticket/{{id}}", change, methods=["PUT"]),
        ]
    )


def webhook_app(store: Store) -> Starlette:
    """A webhook that does what the README asks of one: it takes the same key once."""
    taken: dict[str, str] = {}

    async def take(request: Request) -> Response:
        key, body = request.headers["Idempotency-Key"].strip('"'), await request.json()
        mark = key.rpartition("/")[0]
        if key not in taken:
            there = [each for each in store.tickets if each.mark == mark]
            if body["kind"] == "file":
                there = [store.make(mark, body["title"], body["text"])]
            else:
                there[0].comments.append((key, body["text"]))
            if body["kind"] in ("resolve", "reopen"):
                there[0].status = "resolved" if body["kind"] == "resolve" else "open"
            taken[key] = there[0].id
        return Response("ok") if int(taken[key]) % 2 else JSONResponse({"key": f"HOOK-{taken[key]}"})

    return Starlette(routes=[Route("/in/here", take, methods=["POST"])])


FAULTS = ("no connection", "timeout", "500", "429", "503 after it", "answer lost", "late")


class Wire(httpx.AsyncBaseTransport):
    """The way to a server: each request meets trouble with this chance, of a kind that is drawn by lot."""

    def __init__(self, app: Starlette, clock: HandClock, lot: Random, *, chance: float = 0.0) -> None:
        self._to, self._clock, self._lot = httpx.ASGITransport(app), clock, lot
        self.chance = chance
        self.met: dict[str, int] = dict.fromkeys(FAULTS, 0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on, or not, and its answer, or not."""
        if self._lot.random() >= self.chance:
            return await self._to.handle_async_request(request)
        fault = self._lot.choice(FAULTS)
        self.met[fault] += 1
        if fault == "no connection":
            raise httpx.ConnectError("refused", request=request)
        if fault == "timeout":
            raise httpx.ReadTimeout("too slow", request=request)
        if fault == "500":
            return httpx.Response(500, text="<html>oops</html>")
        if fault == "429":
            return httpx.Response(429, headers={"Retry-After": str(self._lot.randrange(1, 90))})
        if fault == "late":  # it is carried out, though nobody waits for the answer any more
            again = httpx.Request(request.method, request.url, headers=request.headers, content=await request.aread())
            self._clock.put_off(self._lot.uniform(1, 60), lambda: self._to.handle_async_request(again))
            raise httpx.ReadTimeout("too slow", request=request)
        await self._to.handle_async_request(request)
        if fault == "answer lost":
            raise httpx.ReadError("reset", request=request)
        return httpx.Response(503, text="upstream")

"""The intake over HTTP: the webhook and its documentation, health, readiness, metrics, and what else is hung in."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, WithJsonSchema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]

from deployments.intake.acceptance import Desk
from deployments.intake.credentials import Credentials
from deployments.intake.settings import Settings
from deployments.intake.webhook_listener import BODY_MODELS, router
from tasks.errors import LedgerUnavailable

RETRY_SECONDS = 30

logger = logging.getLogger("runbooks.intake")

_SCRIPT, _STYLE, _ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"
_ONLY_FROM_HERE = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def app_of(
    settings: Settings,
    desk: Desk,
    *,
    now: Callable[[], datetime],
    credentials: Credentials,
    ready: Callable[[], Awaitable[dict[str, str]]],
    registry: CollectorRegistry,
    routes: Sequence[BaseRoute] = (),
) -> FastAPI:
    """The whole application.

    Args:
        now: an aware time, to judge the age of signatures.
        credentials: what senders to the webhook must show (`credentials_of`).
        ready: each part of the intake by name -> empty if it works, else one sentence on what is wrong.
        registry: what is shown at `/metrics`.
        routes: those of other sources.
    """
    app = _Application(
        title="MRS runbooks: the intake",
        description="Alarms in, one run per episode out. A 2xx means that it is on disk.",
        version=version("mrs-runbooks"),
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        routes=list(routes),
        exception_handlers={
            HTTPException: _refused,
            LedgerUnavailable: _again,
            ClientDisconnect: _gone,
            Exception: _broken,
        },
    )
    app.openapi_version = "3.0.3"  # the newest that the bundled page can show
    app.include_router(router(settings.webhook, desk, credentials=credentials, now=now))
    _add_state(app, ready, registry)
    _add_page(app)
    return app


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The schema, with the models of the body: it is read alarm by alarm, so FastAPI does not see them."""
        if not self.openapi_schema:
            super().openapi()["components"]["schemas"].update(BODY_MODELS)
        return super().openapi()


class Health(BaseModel):
    """That it answers."""

    status: Annotated[Literal["ok"], WithJsonSchema({"type": "string", "enum": ["ok"]})]


def _add_state(app: FastAPI, ready: Callable[[], Awaitable[dict[str, str]]], registry: CollectorRegistry) -> None:
    @app.get("/health", summary="Does it answer?", response_model=Health)
    async def health() -> dict[str, str]:
        """Says that the process answers, and nothing about what it depends on."""
        return {"status": "ok"}

    @app.get(
        "/ready",
        summary="Does it work?",
        response_model=dict[str, str],
        response_description="Every part works.",
        responses={503: {"model": dict[str, str], "description": "At least one part does not work."}},
    )
    async def readiness() -> JSONResponse:
        """Each part by its name: empty if it works, else what is wrong."""
        parts = await ready()
        return JSONResponse(parts, 503 if any(parts.values()) else 200)

    @app.get(
        "/metrics",
        summary="What it counts",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "For Prometheus."}},
    )
    async def metrics() -> Response:
        """In the text format of Prometheus."""
        shown = await asyncio.to_thread(generate_latest, registry)  # seconds, where thousands of clusters are named
        return Response(shown, media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def page() -> HTMLResponse:
        shown = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url=f"/docs/{_SCRIPT}",
            swagger_css_url=f"/docs/{_STYLE}",
            swagger_favicon_url=f"/docs/{_ICON}",
            swagger_ui_parameters={"validatorUrl": None},  # else the page asks a server on the internet
        )
        shown.headers["Content-Security-Policy"] = _ONLY_FROM_HERE
        return shown

    @app.get("/docs/{asset}", include_in_schema=False)
    async def part(asset: str) -> FileResponse:
        if asset not in (_SCRIPT, _STYLE, _ICON):  # the bundle holds a page of its own that is not for here
            raise HTTPException(404)
        return FileResponse(swagger_ui_path / asset)


async def _refused(request: Request, error: HTTPException) -> Response:
    """The framework's own refusals in a sentence, ours as they are."""
    headers = error.headers or {}
    detail = error.detail
    if detail == HTTPStatus(error.status_code).phrase:
        detail = {
            404: "there is nothing at this address: /docs shows what there is",
            405: f"this address takes {headers.get('Allow', 'other methods')} only: /docs shows what there is",
        }.get(error.status_code, detail)
    return JSONResponse({"detail": detail}, error.status_code, headers)


async def _again(request: Request, error: LedgerUnavailable) -> Response:
    logger.warning("a request to %s is to be sent again: %s", request.url.path, error)
    why = f"the ledger cannot be written now: send the whole request again in {RETRY_SECONDS} s"
    return JSONResponse({"detail": why}, 503, {"Retry-After": str(RETRY_SECONDS)})


async def _gone(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "the connection ended before the body did: send it again"}, 400)


async def _broken(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "a fault of the intake: its log holds more; send it again later"}, 500)

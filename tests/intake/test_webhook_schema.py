"""The webhook against its own schema: schemathesis asks, and holds every answer to what the schema says."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

import schemathesis
from hypothesis import settings as trials
from prometheus_client import CollectorRegistry
from schemathesis.config import SchemathesisConfig

from deployments.intake.acceptance import Delivery, Reason, Receipt, Source
from deployments.intake.app import app_of
from deployments.intake.credentials import Credentials
from deployments.intake.settings import Settings

TOKEN = "a-token-of-the-tests"
# Statuses that are right besides the usual ones: what the desk rejects is well-formed and a 422, a batch with one bad
# alarm is a 207, and a body may be too long.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "422"]
[checks.negative_data_rejection]
expected-statuses = ["207", "400", "401", "413", "415", "422"]
"""


class FickleDesk:
    """Answers differently each time, in all the ways there are."""

    def __init__(self) -> None:
        self._receipts = cycle(
            [
                Receipt("accepted", "it starts an episode", episode="e-1"),
                Receipt("duplicate", "it is known", episode="e-1"),
                Receipt("rejected", "no cluster has that name", "unknown-cluster"),
            ]
        )

    async def accept(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        """One receipt each, the next one that there is."""
        return [next(self._receipts) for _ in deliveries]

    async def reject(self, source: Source, peer: str, reason: Reason, why: str, received: bytes) -> None:
        """Nothing is kept."""

    async def heard(self, source: Source, peer: str) -> None:
        """Nothing is kept."""

    async def first_time(self, source: Source, message_id: str) -> bool:
        """Nothing is kept."""
        return True


async def all_is_well() -> dict[str, str]:
    """Every part works."""
    return {"ledger": "", "prefect": ""}


app = app_of(
    Settings(),
    FickleDesk(),
    now=lambda: datetime.now(UTC),
    credentials=Credentials(token=TOKEN, key=b"a-key-of-the-tests"),
    ready=all_is_well,
    registry=CollectorRegistry(),
)
schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=SchemathesisConfig.from_str(CONFIG))


def test_the_schema_is_valid() -> None:
    """The document is OpenAPI 3.0, the newest that the bundled page can show, and follows its rules."""
    schema.validate()
    assert schema.raw_schema["openapi"] == "3.0.3"


@schema.parametrize()
@trials(max_examples=50, deadline=None)
def test_known_senders_are_answered_as_the_schema_says(case: schemathesis.Case[Any]) -> None:
    """Whatever a sender with the token sends, the schema describes the answer; what follows it is never malformed."""
    response = case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})
    assert case.meta is not None
    if case.meta.generation.mode.is_positive:
        assert "malformed" not in response.text


@schema.include(path="/alarms").parametrize()
@trials(max_examples=25, deadline=None)
def test_unknown_senders_are_refused(case: schemathesis.Case[Any]) -> None:
    """Whatever is sent to the webhook without a token is refused as the schema says."""
    response = case.call_and_validate()
    assert response.status_code == (401 if case.method == "POST" else 405)

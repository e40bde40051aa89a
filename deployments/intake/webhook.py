"""The JSON webhook: what its body may say, read into observations. No I/O.

For whatever can send an HTTP request and is neither Manager's syslog nor SMN: a script, a bridge, another monitor.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from deployments.intake.acceptance import Reason, Receipt
from tasks.models import ClearedBy, Observation

MOST_ALARMS = 1000

# One spelling for pydantic, JSON Schema and JavaScript. Besides control characters: what turns the direction of text.
_PRINTABLE = r"^[^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]*$"
_DIGITS = r"^[0-9]{1,10}$"
_RFC3339 = re.compile(r"20\d\d-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)?", re.ASCII)
_LARGEST = 10**18 - 1
_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_EARLIEST, _LATEST = ((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND for year in (2000, 2100))
_KEYS = "cluster, alarm_id, kind, host, serial, occurred, cleared, cleared_by"


class Malformed(Exception):
    """What was sent is no alarm, or no JSON: one sentence on what is wrong, where, and what to write."""


def _as_text(value: object) -> object:
    if value is None:
        return ""
    return str(value) if type(value) is int and 0 <= value <= _LARGEST else value


def _moment(value: object) -> datetime | None:
    """A time in UTC; null is the same as leaving it out."""
    if value is None:
        return None
    if type(value) is int:
        if not _EARLIEST <= value < _LATEST:
            raise PydanticCustomError("time", "not between 2000 and 2100: write milliseconds since 1970")
        return _EPOCH + value * _MILLISECOND
    try:
        moment = datetime.fromisoformat(value.upper()) if isinstance(value, str) and _RFC3339.fullmatch(value) else None
    except ValueError:  # such as the 30th of February
        moment = None
    if moment is None:
        raise PydanticCustomError("time", "no such time: write it like 2026-11-22T13:47:42+01:00")
    if moment.tzinfo is None:
        raise PydanticCustomError("time", "without an offset it may be any of 24 hours: end it with Z or like +01:00")
    return moment.astimezone(UTC)


# The schemas are written out where pydantic's need OpenAPI 3.1: the page that shows them knows 3.0 only.
_TEXT = {"type": "string", "nullable": True, "pattern": _PRINTABLE}
_NOTHING = WithJsonSchema({"type": "string", "nullable": True, "enum": [None]})

AlarmId = Annotated[
    str,
    Field(pattern=_DIGITS),
    BeforeValidator(_as_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _DIGITS},
                {"type": "integer", "minimum": 0, "maximum": 9_999_999_999},
            ]
        }
    ),
]
Host = Annotated[
    str,
    Field(max_length=255, pattern=_PRINTABLE),
    BeforeValidator(lambda value: "" if value is None else value),
    WithJsonSchema({**_TEXT, "maxLength": 255}),
]
Serial = Annotated[
    str,
    Field(max_length=64, pattern=_PRINTABLE),
    BeforeValidator(_as_text),
    WithJsonSchema({"anyOf": [{**_TEXT, "maxLength": 64}, {"type": "integer", "minimum": 0, "maximum": _LARGEST}]}),
]
When = Annotated[
    datetime | None,
    BeforeValidator(_moment),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "nullable": True, "format": "date-time", "pattern": "^20"},
                {"type": "integer", "minimum": _EARLIEST, "maximum": _LATEST - 1},
            ]
        }
    ),
]
Who = Annotated[
    ClearedBy | None, WithJsonSchema({"type": "string", "nullable": True, "enum": [*get_args(ClearedBy), None]})
]


class _Alarm(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cluster: str = Field(
        min_length=1,
        max_length=128,
        pattern=_PRINTABLE,
        description="The cluster's name as its alarms report it, or its id in the cloud.",
    )
    alarm_id: AlarmId = Field(description="The alarm's number, as on its page.")
    host: Host = Field("", description="The HostName of the alarm's location.")
    serial: Serial = Field("", description="Manager's serial number, the same for the alarm and its clear.")
    occurred: When = Field(
        None, description="When it occurred, by Manager's clock: RFC 3339, or milliseconds since 1970."
    )


class Raised(_Alarm):
    """An alarm that is there."""

    kind: Annotated[Literal["raised"], WithJsonSchema({"type": "string", "enum": ["raised"]})]
    cleared: Annotated[None, _NOTHING] = Field(None, description="Not yet: null, or left out.")
    cleared_by: Annotated[None, _NOTHING] = Field(None, description="Nobody yet: null, or left out.")


class Cleared(_Alarm):
    """An alarm that has gone."""

    kind: Annotated[Literal["cleared"], WithJsonSchema({"type": "string", "enum": ["cleared"]})]
    cleared: When = Field(None, description="When it was cleared, by Manager's clock.")
    cleared_by: Who = Field(None, description="`auto`: by Manager itself; `person`: by hand.")


_Item = Annotated[Raised | Cleared, Field(discriminator="kind")]
_ITEM: TypeAdapter[Raised | Cleared] = TypeAdapter(_Item)


class Alarms(BaseModel):
    """Many alarms in one request."""

    model_config = ConfigDict(extra="forbid")

    alarms: list[_Item] = Field(min_length=1, max_length=MOST_ALARMS)


class Answer(BaseModel):
    """What became of one alarm."""

    status: Literal["accepted", "duplicate", "rejected"] = Field(
        description="`accepted` is new, `duplicate` was known: both are on disk. `rejected` starts nothing."
    )
    reason: Annotated[
        Reason | None, WithJsonSchema({"type": "string", "nullable": True, "enum": [*get_args(Reason), None]})
    ] = Field(description="Why it was rejected, in one word; null if it was not.")
    why: str = Field(description="One sentence, for a person.")
    episode: str = Field(description="The episode it belongs to; empty where it belongs to none.")

    @classmethod
    def of(cls, receipt: Receipt) -> "Answer":
        """The answer that says what this receipt says."""
        return cls(status=receipt.what, reason=receipt.reason, why=receipt.why, episode=receipt.episode)


class Answers(BaseModel):
    """One answer for each alarm, in the order in which they were sent."""

    alarms: list[Answer]


class Problem(BaseModel):
    """Why the request as a whole was not taken."""

    detail: str = Field(description="One sentence: what was wrong, where, what to do.")


def read_body(body: bytes) -> list[object]:
    """The alarms of a body, one or many, still to be read one by one with `read_alarm`.

    Raises:
        Malformed: it is no JSON, or JSON of another shape.
    """
    try:
        said = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Malformed(f"the body is no JSON ({error}): send one alarm as an object, or many in alarms") from None
    if not isinstance(said, dict):
        raise Malformed("the body is JSON but no object: send one alarm as an object, or many in alarms")
    if "alarms" not in said:
        return [said]
    if len(said) > 1:
        raise Malformed("the body has other keys beside alarms: send alarms alone")
    alarms = said["alarms"]
    if not isinstance(alarms, list) or not 1 <= len(alarms) <= MOST_ALARMS:
        raise Malformed(f"alarms is no list of 1 to {MOST_ALARMS} alarms: send more in several requests")
    return alarms


def read_alarm(item: object) -> Observation:
    """What one alarm of a body claims.

    Raises:
        Malformed: it does not follow the schema; names at most three faults, never repeats a value.
    """
    if not isinstance(item, dict):
        raise Malformed(f"it is no JSON object: write one with the keys {_KEYS}")
    try:
        alarm = _ITEM.validate_python(item)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise Malformed("; ".join(map(_said, faults[:3])) + more) from None
    return Observation(
        alarm_id=alarm.alarm_id,
        kind=alarm.kind,
        cluster=alarm.cluster,
        host=alarm.host,
        serial=alarm.serial,
        occurred=alarm.occurred,
        cleared=alarm.cleared,
        cleared_by=alarm.cleared_by,
    )


def _said(fault: ErrorDetails) -> str:
    """One fault in words: where, what, what to do."""
    kind, where, context = fault["type"], str(fault["loc"][-1]) if fault["loc"] else "kind", fault.get("ctx", {})
    words: Mapping[str, str] = {
        "missing": "it is missing: add it",
        "union_tag_not_found": "it is missing: write raised or cleared",
        "union_tag_invalid": "write raised or cleared",
        "extra_forbidden": f"there is no such key: the keys are {_KEYS}",
        "none_required": "a raised alarm is not cleared: leave it out, or send the kind cleared",
        "string_type": "null is no value: write one" if fault["input"] is None else "it is no text: write one",
        "string_too_short": "it is empty: write one",
        "string_too_long": f"it is longer than {context.get('max_length')} characters: shorten it",
        "string_pattern_mismatch": "it holds control characters: leave them out",
        "literal_error": f"write {context.get('expected')}",
    }
    if kind in ("string_type", "string_pattern_mismatch") and where == "alarm_id":
        return "alarm_id: write 1 to 10 digits, like 12110"
    shown = repr(where if len(where) <= 40 else f"{where[:37]}...") if kind == "extra_forbidden" else where
    return f"{shown}: {words.get(kind, fault['msg'])}"

"""What the tasks speak about: the page's words, typed and frozen, without HTTP and without Prefect."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

# Both clouds answer numbers as strings here and there, and null where the page says string.
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else str(value))]


def _moment(value: Any) -> Any:
    """Epoch milliseconds (Manager) as an aware time; 0, "" and None mean not yet."""
    if value in (0, "0", "", None):
        return None
    if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
        try:
            return datetime.fromtimestamp(int(value) / 1000, UTC)
        except (OverflowError, OSError) as error:
            raise ValueError("not a time in epoch milliseconds") from error
    return value


def _count(value: Any) -> int | None:
    """A number, also as a string; anything else is no count."""
    return int(value) if str(value).isdecimal() else None


Count = Annotated[int | None, BeforeValidator(_count)]
Many = Annotated[tuple[Any, ...], BeforeValidator(lambda value: () if value is None else value)]
# IAM writes its times without an offset here and there; they are UTC.
InUtc = Annotated[datetime, AfterValidator(lambda time: time if time.tzinfo else time.replace(tzinfo=UTC))]
Moment = Annotated[InUtc | None, BeforeValidator(_moment)]


class Frozen(BaseModel):
    """A value: equal by content, never changed, unknown fields of an answer ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Outcome(StrEnum):
    """How a run, or one host's part in it, ended.

    `END` and `ESCALATE` are the page's two ends; every other word says why the page was left early.
    """

    END = "END"
    ESCALATE = "ESCALATE"
    CLEARED = "CLEARED"
    CLEARED_BY_PERSON = "CLEARED-BY-PERSON"
    CANNOT_TELL = "CANNOT-TELL"
    REFUSED = "REFUSED"
    DECLINED = "DECLINED"
    DRY_RUN = "DRY-RUN"
    JOINED = "JOINED"
    CANCELLED = "CANCELLED"
    ERROR = "ERROR"


class Case(Frozen):
    """What one run is about. Holds names only, so it may be an argument of any task.

    Attributes:
        cluster: name of the `Cluster` block.
        alarm_id: for example `12110`.
        host: only this host, or empty for every alarmed host of the cluster.
        dry_run: nothing is changed, whatever the cluster's mode.
        comment: what the person who started the run wrote.
        run: the flow run's id.
        reported: hosts whose alarms the sources reported; taken for alarmed only where Manager offers no alarm list.
    """

    cluster: str
    alarm_id: str
    host: str = ""
    dry_run: bool = True
    comment: str = ""
    reported: tuple[str, ...] = ()
    run: str = ""


NOT_LISTED = "not listed"  # the status of an alarm that a source reported, and that Manager does not list at all


class Alarm(Frozen):
    """One occurrence of an alarm, in the fields of Manager's alarm page.

    Times are Manager's own clock and are compared with Manager's times only.
    Source: Manager 3.x, "Overview of Alarms and Events" (vocabulary); the JSON is unverified.
    """

    alarm_id: Text = Field(validation_alias=AliasChoices("alarmId", "alarm_id"))
    serial: Text = Field("", validation_alias=AliasChoices("serialNo", "serial"))
    status: Text = ""
    occurred: Moment = Field(None, validation_alias=AliasChoices("occurTime", "occurred"))
    cleared: Moment = Field(None, validation_alias=AliasChoices("clearTime", "cleared"))
    source: Text = ""
    location: Text = ""
    reported: bool = Field(False, description="known from the alarm source only, not read back from Manager")

    @property
    def host(self) -> str:
        """The location's HostName, empty where the location has none."""
        for pair in self.location.replace(",", ";").split(";"):
            key, _, value = pair.partition("=")
            if key.strip().lower() == "hostname":
                return value.strip()
        return ""

    def __str__(self) -> str:
        serial = f" serial {self.serial}" if self.serial else ""
        since = f" since {self.occurred:%Y-%m-%d %H:%M:%S}" if self.occurred else ""
        return f"ALM-{self.alarm_id} on {self.host or 'an unnamed host'}{serial}{since}"


class Instance(Frozen):
    """A role instance as Manager lists it.

    Source: Manager 3.x, "Managing Instances" (vocabulary); the JSON is unverified.
    """

    id: Text = ""
    role: Text = Field("", validation_alias=AliasChoices("roleName", "role"))
    host: Text = Field("", validation_alias=AliasChoices("hostName", "host"))
    ip: Text = Field("", validation_alias=AliasChoices("managementIp", "ip"))
    status: Text = Field("", validation_alias=AliasChoices("runningStatus", "status"))
    config: Text = Field("", validation_alias=AliasChoices("configStatus", "config"))
    started: Moment = Field(None, validation_alias=AliasChoices("startTime", "started"))


class ManagedHost(Frozen):
    """A host as Manager lists it (unverified JSON)."""

    name: Text = Field("", validation_alias=AliasChoices("hostName", "name"))
    ip: Text = Field("", validation_alias=AliasChoices("managementIp", "ip"))
    status: Text = Field("", validation_alias=AliasChoices("runningStatus", "status"))
    maintenance: bool = Field(False, validation_alias=AliasChoices("maintenanceMode", "maintenance"))


class Command(Frozen):
    """A command Manager runs (unverified JSON). `state` is IN_PROGRESS, COMPLETE or FAILED."""

    id: Text = Field("", validation_alias=AliasChoices("commandId", "id"))
    name: Text = ""
    state: Text = ""
    failed: Many = Field((), validation_alias=AliasChoices("failedEntities", "failed"))


class Component(Frozen):
    """A role instance as the cloud's nodes API lists it."""

    service: Text = Field("", validation_alias=AliasChoices("service_name", "service"))
    role: Text = Field("", validation_alias=AliasChoices("role_name", "role"))
    status: Text = Field("", validation_alias=AliasChoices("running_status", "status"))
    config: Text = Field("", validation_alias=AliasChoices("config_status", "config"))


class Node(Frozen):
    """A node of the cluster: Manager's host name, its ECS server and its role instances.

    Source: MRS API "Querying the Node List", GET /v2/{project_id}/clusters/{cluster_id}/nodes.
    """

    host: Text
    status: Text = ""
    server_id: Text = ""
    ip: Text = ""
    components: tuple[Component, ...] = ()


class ClusterRecord(Frozen):
    """What MRS has on record about a cluster; `agency` is None where the field is absent.

    Source: MRS API "Querying Cluster Details", GET /v1.1/{project_id}/cluster_infos/{cluster_id}, and "Querying a
    Cluster List".
    """

    id: Text = Field("", validation_alias=AliasChoices("clusterId", "id"))
    name: Text = Field("", validation_alias=AliasChoices("clusterName", "name"))
    state: Text = Field("", validation_alias=AliasChoices("clusterState", "state"))
    version: Text = Field("", validation_alias=AliasChoices("clusterVersion", "version"))
    nodes: Count = Field(None, validation_alias=AliasChoices("totalNodeNum", "nodes"))
    agency: str | None = Field(None, validation_alias=AliasChoices("mrsEcsDefaultAgency", "agency"))


class Agency(Frozen):
    """An agency in IAM. Source: IAM API "Querying Agencies", GET /v3.0/OS-AGENCY/agencies."""

    id: Text = ""
    name: Text = ""
    trusts: Text = Field("", validation_alias=AliasChoices("trust_domain_name", "trusts"))
    expires: InUtc | None = Field(None, validation_alias=AliasChoices("expire_time", "expires"))


def _user_name(value: Any) -> Any:
    """The name of a user, which CTS v3 gives as an object and its older pages as text; empty where it gives none."""
    name = value.get("name") if isinstance(value, dict) else value
    return "" if name is None else name


class Trace(Frozen):
    """An operation on a cloud resource that CTS recorded: what, by whom, when (UTC), on which resource.

    Attributes:
        user: empty where CTS names nobody.
        resource_id: of a change of a server's agency the server's id (inferred); empty where CTS names none.

    Source: CTS API "Querying a Trace List", GET /v3/{project_id}/traces.
    """

    id: Text = Field("", validation_alias=AliasChoices("trace_id", "id"))
    name: str = Field(min_length=1, validation_alias=AliasChoices("trace_name", "name"))
    user: Annotated[str, BeforeValidator(_user_name)] = ""
    time: Annotated[InUtc, BeforeValidator(_moment)]
    resource_id: Text = ""


Kind = Literal["raised", "cleared", "event", "trigger"]
ClearedBy = Literal["auto", "person"]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a source claims about one alarm; a claim to be checked, never a command. Texts are as the source gave them.

    Attributes:
        kind: `trigger` says only that Manager's alarm list is worth reading now; `event` is no alarm.
        cluster: the cluster's name (`Source`, `dn`) or its id in the cloud; it only looks the cluster up.
        host: empty where the source does not say.
        serial: Manager's serial number, the same for the alarm and its clear; empty where the source does not say.
        occurred: when the alarm occurred, by Manager's clock, aware, UTC; None where the source does not say.
        cleared: when it was cleared, by the same clock.
        cleared_by: None when it is not cleared, or the source does not say by whom.
        sent: when the source wrote this, by the clock that wrote `occurred`; the two tell the alarm's age.
    """

    alarm_id: str
    kind: Kind
    cluster: str
    host: str = ""
    serial: str = ""
    occurred: datetime | None = None
    cleared: datetime | None = None
    cleared_by: ClearedBy | None = None
    sent: datetime | None = None


class Answer(Frozen):
    """The answer to one question of the page, for one host.

    Attributes:
        value: `y`, `n`, or the word with which this host's part of the run ends here.
        seen: the evidence, one sentence.
    """

    host: str
    value: Literal["y", "n"] | Outcome
    seen: str
    at: datetime


class Deed(Frozen):
    """What a mutating step did, for one host: changed it, found it so already, or did not.

    Attributes:
        changed: something was really changed.
        ended: None where the page goes on, else the word with which this host's part ends here.
        incident: id of the tripped breaker that kept it from being done.
        by_hand: it was not done, for no API does it here; a person can.
        looked: nothing was done: it says what was seen right before something is.
    """

    host: str
    did: str
    at: datetime
    changed: bool = False
    ended: Outcome | None = None
    incident: str = ""
    by_hand: bool = False
    looked: bool = False


def hosts_of(alarms: Sequence[Alarm]) -> str:
    """Host names in one line, for run names and sentences."""
    return few([alarm.host for alarm in alarms])


def few(names: Sequence[str]) -> str:
    """Names in one line; of more than five the first four, and how many are left out."""
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:4])} and {len(names) - 4} more"

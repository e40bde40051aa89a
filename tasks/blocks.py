"""What an O&M engineer configures in the Prefect UI: where a cluster is, with what to reach it, and what is allowed.

Register the forms with `prefect block register --module tasks.blocks`.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import httpx
from prefect.blocks.core import Block
from pydantic import AfterValidator, ConfigDict, Field, SecretStr, model_validator

from tasks.clients.cts import Cts
from tasks.clients.ecs import Ecs
from tasks.clients.http import Patience, on_this_machine, trusting
from tasks.clients.iam import Iam
from tasks.clients.manager import Manager as ManagerClient
from tasks.clients.mrs import Mrs
from tasks.clients.signing import SignedWithKeys, SignedWithToken
from tasks.ticket_systems import TicketSystem as TicketSystem  # its form is registered with the others
from tasks.windows import parse_freeze, parse_time_zone, parse_window

SHORTEST_WAIT = 360  # Meta asks every 300 s and clears on the first success: under one period says nothing.

Mode = Literal["observe", "approve", "auto"]
ActionMode = Literal["as the cluster", Mode]


def _checked_by(parse: Callable[[str], object]) -> AfterValidator:
    """Keeps a text as it was written, once `parse` has read it."""

    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


class Manager(Block):
    """A cluster's Manager (FusionInsight Manager 3.x) and a technical user on it."""

    _block_type_name = "MRS Manager"
    _block_type_slug = "mrs-manager"
    _description = "Manager of an MRS cluster: address, technical user, CA and route overrides."
    model_config = ConfigDict(hide_input_in_errors=True)

    url: str = Field(description="REST root: https://<ip>:28443/web/api/v2 or https://<eip>:9022/mrsmanager/api/v2")
    user: str = Field(description="A technical user of its own: Manager locks a user after five wrong passwords.")
    password: SecretStr = Field(description="Its password. One rejection suspends the login until it is changed here.")
    cluster_number: int = Field(1, ge=1, description="Manager's own number of the cluster, usually 1.")
    ca_pem: str = Field("", description="PEM text of the CA of Manager's certificate (self-signed by default).")
    ca_file: str = Field("", description="Or the path of that PEM file on the workers.")
    routes: dict[str, str] = Field(
        default={},
        description='Your Manager\'s own routes, e.g. {"alarms": "GET monitor/alarms"}; "" means: not offered.',
    )

    def get_client(self, *, dry_run: bool, patience: Patience | None = None, keep_alive: bool = True) -> ManagerClient:
        """A client of this Manager; it opens its session on first use. See `Api` for what may be chosen."""
        return ManagerClient(
            self.url,
            user=self.user,
            password=self.password.get_secret_value(),
            cluster=self.cluster_number,
            routes=self.routes,
            verify=trusting(self.ca_file, self.ca_pem),
            dry_run=dry_run,
            patience=patience,
            keep_alive=keep_alive,
        )


class Cloud(Block):
    """A project of Huawei Cloud or Open Telekom Cloud, with keys or a token for it."""

    _block_type_name = "MRS Cloud"
    _block_type_slug = "mrs-cloud"
    _description = "The cloud APIs of a project: MRS, ECS, IAM and CTS endpoints, and an access key."
    model_config = ConfigDict(hide_input_in_errors=True)

    project_id: str = Field(description="Project id, from the console's My Credentials.")
    region: str = Field("", description="For example eu-de; sweeps can be asked for the clusters of one region.")
    domain_id: str = Field(description="Account (domain) id, needed to look an agency up in IAM.")
    mrs_url: str = Field(description="For example https://mrs.eu-de.otc.t-systems.com")
    ecs_url: str = Field(description="For example https://ecs.eu-de.otc.t-systems.com")
    iam_url: str = Field(description="For example https://iam.eu-de.otc.t-systems.com")
    cts_url: str = Field(
        "",
        title="CTS URL",
        description="For example https://cts.eu-de.otc.t-systems.com; who changed an agency. Empty: not asked.",
    )
    access_key: SecretStr = Field(SecretStr(""), description="Access key (AK) of a user with the README's policies.")
    secret_key: SecretStr = Field(SecretStr(""), description="Its secret key (SK).")
    security_token: SecretStr = Field(SecretStr(""), description="Only with temporary keys.")
    token: SecretStr = Field(SecretStr(""), description="Or an IAM token instead of keys (valid 24 hours).")
    ca_pem: str = Field("", description="PEM text of a CA, where the endpoints do not use a public one.")
    ca_file: str = Field("", description="Or the path of that PEM file on the workers.")

    @model_validator(mode="after")
    def _has_one_credential(self) -> Self:
        keys = bool(self.access_key.get_secret_value()) and bool(self.secret_key.get_secret_value())
        if keys == bool(self.token.get_secret_value()):
            raise ValueError("give either access_key and secret_key, or token")
        return self

    def get_clients(self, *, dry_run: bool) -> tuple[Mrs, Ecs, Iam]:
        """Clients of the three services; requests are signed with the keys, or carry the token."""
        verify = trusting(self.ca_file, self.ca_pem)
        mrs = Mrs("MRS", self.mrs_url, auth=self._auth("X-Project-Id"), verify=verify, dry_run=dry_run)
        iam = Iam("IAM", self.iam_url, auth=self._auth("X-Domain-Id"), verify=verify, dry_run=dry_run)
        mrs.project_id, iam.domain_id = self.project_id, self.domain_id
        return mrs, self.get_ecs(dry_run=dry_run), iam

    def get_ecs(self, *, dry_run: bool) -> Ecs:
        """A client of ECS, the one service in which something is changed."""
        verify = trusting(self.ca_file, self.ca_pem)
        ecs = Ecs("ECS", self.ecs_url, auth=self._auth("X-Project-Id"), verify=verify, dry_run=dry_run)
        ecs.project_id = self.project_id
        name = self._block_document_name
        ecs.acts_as = f"the credentials of {f'MRS Cloud block {name}' if name else 'the cluster block'}"
        return ecs

    def get_cts(self) -> Cts | None:
        """A client of CTS, which only reads, or None where the block names none."""
        if not self.cts_url:
            return None
        cts = Cts("CTS", self.cts_url, auth=self._auth("X-Project-Id"), verify=trusting(self.ca_file, self.ca_pem))
        cts.project_id = self.project_id
        return cts

    def _auth(self, scope: str) -> httpx.Auth:
        if self.token.get_secret_value():
            return SignedWithToken(self.token.get_secret_value())
        return SignedWithKeys(
            self.access_key.get_secret_value(),
            self.secret_key.get_secret_value(),
            security_token=self.security_token.get_secret_value(),
            scope={scope: self.domain_id if scope == "X-Domain-Id" else self.project_id},
        )


class Approver(Block):
    """A person whose approvals are authenticated: by a key that only this person has."""

    _block_type_name = "MRS Approver"
    _block_type_slug = "mrs-approver"
    _description = "A person who approves changes with a personal key: made by `runbooks approvers add NAME`."
    model_config = ConfigDict(hide_input_in_errors=True)

    key_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the key; the key itself is kept nowhere.")


class Cluster(Block):
    """An MRS cluster and what the runbooks may do to it."""

    _block_type_name = "MRS Cluster"
    _block_type_slug = "mrs-cluster"
    _description = "An MRS cluster: its identity, its Manager and cloud blocks, and what a runbook may change."
    model_config = ConfigDict(hide_input_in_errors=True)

    cluster_id: str = Field(description="The cluster's id in the cloud (UUID), from its overview page.")
    source: str = Field(description="The cluster's name as alarms report it (Source); only looks the cluster up.")
    manager: Manager
    cloud: Cloud
    changing_manager: Manager | None = Field(
        None,
        title="Manager for changes",
        description="The same Manager with a user that may operate the Meta service. Empty: the one that reads.",
    )
    changing_cloud: Cloud | None = Field(
        None,
        title="Cloud for changes",
        description="The same project with a key that may change servers' metadata. Empty: the one that reads.",
    )
    labels: dict[str, str] = Field(
        default={}, description='For choosing clusters, e.g. {"team": "payments", "stage": "production"}.'
    )
    mode: Mode = Field(
        "approve",
        description="observe: change nothing. approve: a person must agree. auto: change what the gates let pass.",
    )
    restart_mode: ActionMode = Field(
        "as the cluster",
        title="Mode of restarts",
        description="For restarting a Meta instance: a mode of its own. A cluster in observe stays in observe.",
    )
    rebind_mode: ActionMode = Field(
        "as the cluster",
        title="Mode of binding the agency again",
        description="For binding the agency again: a mode of its own. A cluster in observe stays in observe.",
    )
    windows: list[Annotated[str, _checked_by(parse_window)]] = Field(
        default=[],
        title="Maintenance windows",
        description="When changes may be made, e.g. Mon-Fri 22:00-06:00 (ends the next morning), Sat,Sun 00:00-24:00 "
        "or daily 01:30-04:00. No window at all: at any time.",
    )
    freezes: list[Annotated[str, _checked_by(parse_freeze)]] = Field(
        default=[],
        title="Change freezes",
        description="When nothing may be changed, not even in a window, e.g. 2026-12-20 to 2027-01-06 (both included) "
        "or 2026-12-24 12:00 to 2026-12-27 06:00.",
    )
    time_zone: Annotated[str, _checked_by(parse_time_zone)] = Field(
        "UTC",
        title="Time zone",
        description="The time zone that windows and freezes are written in, e.g. Europe/Berlin.",
    )
    approval_expires: float = Field(
        1800,
        gt=0,
        title="Approvals expire",
        description="Seconds in which a person must answer; then a ticket is filed.",
    )
    four_eyes: bool = Field(
        False,
        title="Four eyes",
        description="Approvals count only with a personal key (runbooks approve), not of who started the run.",
    )
    notifications: list[str] = Field(
        default=[],
        title="Notifications",
        description="Who is told that a person is needed: notification blocks of Prefect, e.g. slack-webhook/on-call.",
    )
    agency: str = Field("", description="The agency to bind when the cluster has none; it must exist and trust ECS.")
    on_unbound: Literal["escalate", "rebind"] = Field(
        "escalate", description="An agency may have been removed on purpose: rebind only if you say so here."
    )
    tickets: str = Field(
        "",
        title="Ticket system",
        description="Name of an MRS Ticket System block. Empty: tickets are files of the machine, `runbooks tickets`.",
    )
    meta_service: str = Field("meta", description="Name of the Meta service on Manager, in any case.")
    wait_after_restart: float = Field(600, ge=SHORTEST_WAIT, description="Seconds until the alarm must be cleared.")
    wait_after_rebind: float = Field(900, ge=SHORTEST_WAIT, description="Seconds until the alarm must be cleared.")
    speed: float = Field(1, gt=0, description="Only for the emulator: how much faster its time runs.")

    @model_validator(mode="after")
    def _only_the_emulator_is_fast(self) -> Self:
        cloud = self.cloud
        urls = (self.manager.url, cloud.mrs_url, cloud.ecs_url, cloud.iam_url, cloud.cts_url or cloud.mrs_url)
        elsewhere = [host for host in (urlsplit(url).hostname or "" for url in urls) if not on_this_machine(host)]
        if self.speed != 1 and elsewhere:
            raise ValueError(f"speed is for the emulator on this machine only, not for {elsewhere[0]!r}: leave it at 1")
        return self

    @model_validator(mode="after")
    def _changes_go_where_reads_go(self) -> Self:
        _same("changing_manager", self.changing_manager, "manager", self.manager, ("url", "cluster_number"))
        if self.changing_manager and self.changing_manager.routes not in ({}, self.manager.routes):
            raise ValueError("changing_manager.routes is not manager.routes: leave it empty, those of manager are used")
        places = ("project_id", "domain_id", "mrs_url", "ecs_url", "iam_url")
        _same("changing_cloud", self.changing_cloud, "cloud", self.cloud, places)
        return self

    def manager_for_changes(self) -> Manager | None:
        """The Manager with the login for changes, by the routes of the one that reads; None: that one makes them."""
        own = self.changing_manager
        return own.model_copy(update={"routes": self.manager.routes}) if own else None

    def mode_of(self, action: Literal["restart", "rebind"]) -> Mode:
        """The mode that counts for this action. Of a cluster in `observe` it is always that: it may change nothing."""
        own = self.restart_mode if action == "restart" else self.rebind_mode
        return self.mode if self.mode == "observe" or own == "as the cluster" else own


def _same(name: str, changes: Block | None, of: str, reads: Block, fields: tuple[str, ...]) -> None:
    """Refuse a block for changes that leads elsewhere than the one that reads: another cluster would be changed."""
    for field in fields if changes is not None else ():
        its, ours = (str(getattr(each, field)).rstrip("/") for each in (changes, reads))
        if its != ours:
            what = f"{name}.{field} is {its!r} and {of}.{field} {ours!r}"
            raise ValueError(f"{what}: both must lead to the same place, only the login may differ")

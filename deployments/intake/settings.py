"""The intake's configuration: one TOML file. Secrets are never in it: it names the files that hold them."""

import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from deployments.intake.syslog import DEFAULT_TEMPLATE, IDENTIFIERS, MAX_LINE, Template
from tasks.clients.http import on_this_machine
from tasks.errors import ConfigurationError
from tasks.windows import parse_time_zone

Port = Annotated[int, Field(ge=0, le=65535)]


def _network(value: object) -> object:
    """In one sentence what pydantic says in one for each kind of network."""
    return ip_network(value) if isinstance(value, str) else value


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
EVERYWHERE = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


def _template(text: str) -> str:
    Template(text)
    return text


def _zone(name: str) -> str:
    parse_time_zone(name)
    return name


class Section(BaseModel):
    """A table of the file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(Section):
    """Paths of PEM files: the server's certificate chain and its key."""

    certificate: Path
    key: Path
    client_ca: Path | None = Field(None, description="Peers must show a certificate of this CA (syslog only).")


class Syslog(Section):
    """The syslog listeners."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 5140
    protocols: tuple[Literal["udp", "tcp"], ...] = ("udp", "tcp")
    tls_port: Port | None = Field(None, description="Port for syslog over TLS (RFC 5425); None: off. Needs `tls`.")
    tls: Tls | None = None
    template: Annotated[str, AfterValidator(_template)] = DEFAULT_TEMPLATE
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    identifiers: tuple[str, ...] = IDENTIFIERS
    heartbeat: str = Field("", description="The heartbeat text set on Manager; a line with this body is one.")
    allowed: tuple[Network, ...] = Field(EVERYWHERE, description="Networks that may send, e.g. 10.0.0.0/8.")
    max_line: int = Field(MAX_LINE, ge=480, le=MAX_LINE)
    max_connections: int = Field(256, ge=1)
    queue_size: int = Field(10_000, ge=1, description="Datagrams that may wait for the ledger.")

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_port is None) != (self.tls is None):
            raise ValueError("tls_port and tls belong together: give both or none")
        return self


class Smn(Section):
    """HTTP(S) subscriptions of SMN topics. No topics: off.

    `endpoint` is the region's SMN, https://smn.<region>...; certificates and confirmations are fetched there only.
    """

    endpoint: str = ""
    topics: dict[str, tuple[str, ...]] = Field({}, description="Topic URN -> the names of its clusters' blocks.")
    max_age: float = Field(3600, gt=0, description="Seconds a message's timestamp may be off; SMN repeats for a while.")

    @model_validator(mode="after")
    def _has_an_endpoint(self) -> Self:
        if not self.topics:
            return self
        url = urlsplit(self.endpoint)
        secure = url.scheme == "https" or (url.scheme == "http" and on_this_machine(url.hostname or ""))
        if not secure or not url.hostname or url.path.strip("/") or url.query or url.username:
            raise ValueError("endpoint: write the region's SMN address, like https://smn.eu-de.otc.t-systems.com")
        if empty := [urn for urn, clusters in self.topics.items() if not clusters]:
            raise ValueError(f"topics: {empty[0]} names no cluster: list the blocks whose alarms it carries")
        return self


class Webhook(Section):
    """The JSON webhook. No secret: off."""

    token_file: Path | None = Field(None, description="Holds the bearer token.")
    secret_file: Path | None = Field(None, description="Holds the signing secret, as text or as whsec_<base64>.")
    max_age: float = Field(300, gt=0, description="Seconds a signature's timestamp may be off.")
    max_body: int = Field(1_000_000, ge=1_000)


class Polling(Section):
    """Reading Manager's alarm list: a source of its own, and the repair of all others."""

    enabled: bool = True
    interval: float = Field(60, ge=5, description="Seconds between two looks at one cluster.")
    concurrency: int = Field(20, ge=1, le=1000)


class Metrics(Section):
    """What `/metrics` tells."""

    per_cluster: bool = Field(True, description="False: how alarms were handled, of all clusters together.")


class Http(Section):
    """Where webhook, SMN, health and metrics are served."""

    host: str = "127.0.0.1"
    port: Port = 8088
    tls: Tls | None = None


class Settings(Section):
    """The whole file; everything has a default."""

    http: Http = Http()
    syslog: Syslog = Syslog()
    smn: Smn = Smn()
    webhook: Webhook = Webhook()
    polling: Polling = Polling()
    metrics: Metrics = Metrics()

    @field_validator("*", mode="before")
    @classmethod
    def _is_a_table(cls, value: object) -> object:
        if not isinstance(value, dict | Section):
            raise ValueError("write it as a table, [name] on a line of its own")
        return value


def read_settings(path: Path | None) -> Settings:
    """The settings in this file; None: all defaults.

    Raises:
        ConfigurationError: the file is missing, is no TOML, or holds a key or value that does not fit; says which.
    """
    if path is None:
        return Settings()
    try:
        return Settings.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}: name the intake's TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML ({error})") from error
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, e['loc'])) or 'file'}: {_said(e['type'], e['msg'])}" for e in error.errors())
        raise ConfigurationError(f"{path}: {'; '.join(faults)}") from error


def secret_in(path: Path) -> str:
    """The secret a file holds, without the line end.

    Raises:
        ConfigurationError: it cannot be read, or is empty.
    """
    try:
        secret = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"the secret file {path} cannot be read ({why})") from error
    if len(secret) < 16:
        raise ConfigurationError(f"the secret in {path} is shorter than 16 characters: make a longer one")
    return secret


def _said(kind: str, message: str) -> str:
    return "there is no such key" if kind == "extra_forbidden" else message.removeprefix("Value error, ")

"""What `clusters.yaml` may say: which credentials there are, what all clusters share, and each cluster.

What a cluster's block can be told the file can be told, in the same words: the fields are the block's own.
"""

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, create_model
from pydantic.config import JsonDict

from tasks.blocks import Cluster, Manager
from tasks.clients.http import on_this_machine

# What the file says in its own way, because blocks are named in it and secrets are not.
NAMED = {"cluster_id", "source", "manager", "cloud", "changing_manager", "changing_cloud"}
SECRET = {"user", "password"}
SETTINGS = tuple(name for name in Cluster.model_fields if name not in NAMED)

BlockName = Annotated[str, StringConstraints(pattern="^[a-z0-9-]+$")]


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.hostname and (
            parts.scheme == "https" or (parts.scheme == "http" and on_this_machine(parts.hostname))
        )
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("no address of a Manager: write it like https://10.0.0.1:28443/web/api/v2")
    return url


class Strict(BaseModel):
    """Takes what it knows, as what it is: no other key, no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Credentials(Strict):
    """Two blocks by their names: one to read with, one for changes."""

    read: BlockName = Field(description="Name of the block to read with.")
    change: BlockName | None = Field(None, description="Name of the block for changes; left out: the one that reads.")


class Address(Strict):
    """Where a cluster's Manager is: what its block holds, but for the user and the password."""

    url: Annotated[str, AfterValidator(_address)] = Field("", description=Manager.model_fields["url"].description)
    cluster_number: int = 1


class Shared(Strict):
    """What a cluster takes from the defaults where it says nothing itself."""

    cloud: str = Field(
        "", min_length=1, description="One of `clouds`: where the cluster is, and with which keys it is reached."
    )
    login: str = Field("", min_length=1, description="One of `logins`: as whom its Manager is logged in to.")
    manager: Address = Address()

    def settings(self) -> dict[str, Any]:
        """The settings of the cluster's block, all of them, as JSON."""
        return self.model_dump(mode="json", include=set(SETTINGS))

    def address(self) -> dict[str, Any]:
        """The same of its Manager's block."""
        return self.manager.model_dump(mode="json")


class Entry(Shared):
    """A cluster; its key is the name of its blocks."""

    cluster_id: str = Field("", pattern="^[A-Za-z0-9-]*$", description="The cluster's id in the cloud (UUID).")
    name_in_cloud: str = Field("", description="Or its name there, which must be the only one; left out: the key.")
    source: str = Field("", description="Its name as alarms report it; left out: its name in the cloud.")


NO_OTHERS: JsonDict = {"additionalProperties": False}  # else a schema lets names pass that the pattern does not know


class File(Strict):
    """The whole file."""

    clouds: dict[BlockName, Credentials] = Field(
        {},
        description="Projects and accounts: names of MRS Cloud blocks, which hold the keys.",
        json_schema_extra=NO_OTHERS,
    )
    logins: dict[BlockName, Credentials] = Field(
        {},
        description="Users of Managers: names of MRS Manager blocks, whose user and password count, not their address.",
        json_schema_extra=NO_OTHERS,
    )
    defaults: Shared = Shared()
    clusters: dict[BlockName, Entry] = {}


def _fields_of(block: type[BaseModel], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: (block.model_fields[name].annotation, block.model_fields[name]) for name in names}


_address_fields = _fields_of(Manager, tuple(name for name in Manager.model_fields if name not in {*SECRET, "url"}))
_shared_fields = _fields_of(Cluster, SETTINGS)
WholeAddress = create_model("Manager", __base__=Address, **_address_fields)
_shared_fields["manager"] = (WholeAddress, Field(default_factory=WholeAddress, description="Where its Manager is."))

WholeShared = create_model("Defaults", __base__=Shared, **_shared_fields)
WholeEntry = create_model("Cluster", __base__=Entry, **_shared_fields)
WholeFile = create_model(
    "Clusters",
    __base__=File,
    defaults=(
        WholeShared,
        Field(default_factory=WholeShared, description="What every cluster has that says nothing else."),
    ),
    clusters=(
        dict[BlockName, WholeEntry],
        Field({}, description="The clusters, by the names of their blocks.", json_schema_extra=NO_OTHERS),
    ),
)


def schema() -> dict[str, Any]:
    """The file as a JSON schema, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **WholeFile.model_json_schema()}

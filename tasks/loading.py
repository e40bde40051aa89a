"""Blocks as Prefect keeps them, read anew; what cannot be read or used is one sentence, without what is in it."""

import re

import httpx
import stamina
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import PrefectHTTPStatusError
from pydantic import ValidationError

from tasks.blocks import Approver, Cluster
from tasks.errors import ConfigurationError, UnknownCluster, Unreachable


def _may_pass(error: Exception) -> bool:
    """Whether Prefect has troubles of its own, as when its database is busy: a gate must not stay shut for that."""
    return isinstance(error, PrefectHTTPStatusError) and error.response.status_code >= 500


@stamina.retry(on=_may_pass, attempts=4, timeout=60, wait_initial=0.5, wait_max=5)
async def _loaded(name: str, client: PrefectClient | None) -> Cluster:
    return await Cluster.aload(name, client=client)


async def cluster_block(name: str, client: PrefectClient | None = None) -> Cluster:
    """The `Cluster` block of that name, read anew.

    Args:
        client: an open one to ask through; who reads many blocks saves most of the cost so.

    Raises:
        UnknownCluster: there is none; tells how to make one.
        ConfigurationError: its content does not fit; tells which field and why, without the values.
        Unreachable: the Prefect server cannot be asked.
    """
    try:
        return await _loaded(name, client)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise prefect_unreachable(error, "cluster's block") from error
    except RuntimeError as error:  # Prefect's wrapping; the chain below it would show what was put in, secrets too
        if not isinstance(error.__cause__, ValidationError):
            raise
        raise ConfigurationError(
            f"the block 'MRS Cluster/{name}' cannot be used: {faults_of(error.__cause__)}"
        ) from None
    except ValueError as error:
        advice = "make it in the Prefect UI under Blocks > MRS Cluster, or check the spelling"
        raise UnknownCluster(f"there is no cluster {name!r}: {advice}") from error


def prefect_unreachable(error: Exception, what: str) -> Unreachable:
    """The sentence about a Prefect server that does not answer, or not like one; `what` was asked for."""
    why = str(error) if isinstance(error, httpx.TransportError) else ""
    advice = "start its server, or correct PREFECT_API_URL"
    return Unreachable(what, f"Prefect cannot be reached ({why or type(error).__name__}): {advice}")


def faults_of(error: ValidationError) -> str:
    """Which fields of a block are wrong and why, without what was put in."""
    found = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'block'}: {e['msg']}" for e in found)


def approver_name(name: str) -> str:
    """A person's name as blocks are named: `J. Doe` and `j.doe` are `j-doe`; empty where nothing of it is left."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


async def approver_block(name: str, client: PrefectClient) -> Approver:
    """The `Approver` block of that name.

    Raises:
        ConfigurationError: there is none, or it cannot be used.
    """
    try:
        return await Approver.aload(name, client=client)
    except (ValueError, RuntimeError):
        raise ConfigurationError(
            f"nobody named {name!r} has a key: `runbooks approvers add {name}` makes one"
        ) from None

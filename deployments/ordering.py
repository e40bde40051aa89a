"""Starting a run of a deployment from a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from tasks.approvals import STARTED_BY
from tasks.errors import ConfigurationError

LOOK_EVERY = 1.0  # seconds between two looks at how it goes on
NO_WORKER = 15.0  # seconds that it may be due before it is said that nobody takes it
NOBODY_TAKES_IT = "no worker has taken it yet: is one up? (`prefect worker start --pool mrs-runbooks`)"


async def order_run(
    client: PrefectClient,
    deployment: str,
    parameters: Mapping[str, Any],
    by: str,
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
) -> FlowRun:
    """Have a worker carry out this deployment, `FLOW/NAME`.

    Args:
        by: who starts it, as its tag says.

    Raises:
        ConfigurationError: Prefect does not have the deployment.
    """
    try:
        found = await client.read_deployment_by_name(deployment)
    except ObjectNotFound:
        raise ConfigurationError(
            f"Prefect has no deployment {deployment!r}: deploy deployments/prefect.yaml (see its first lines)"
        ) from None
    return await client.create_flow_run_from_deployment(
        found.id, parameters=dict(parameters), name=name, tags=[f"{STARTED_BY}{by}", *tags]
    )

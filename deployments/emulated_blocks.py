"""The blocks with which the runbooks reach a cluster of the emulated region."""

from typing import Any

from deployments.emulator.inventory import Cluster as EmulatedCluster
from deployments.emulator.region import Region
from tasks.blocks import Cloud, Cluster, Manager


def cloud_block(region: Region, url: str, /, **settings: Any) -> Cloud:
    """The region's cloud, served at this address; settings replace what is derived."""
    derived = {
        "project_id": region.project_id,
        "domain_id": region.domain_id,
        "mrs_url": url,
        "ecs_url": url,
        "iam_url": url,
        "cts_url": url,
        "access_key": region.access_key,
        "secret_key": region.secret_key,
    }
    return Cloud(**{**derived, **settings})


def manager_block(cluster: EmulatedCluster, url: str, /, **settings: Any) -> Manager:
    """The Manager of one of its clusters."""
    derived = {
        "url": f"{url}/managers/{cluster.id}/web/api/v2",
        "user": cluster.manager_user,
        "password": cluster.manager_password,
        "cluster_number": cluster.manager_id,
    }
    return Manager(**{**derived, **settings})


def cluster_block(cluster: EmulatedCluster, manager: Manager, cloud: Cloud, /, **settings: Any) -> Cluster:
    """One of its clusters, in mode `auto` and to be bound again to the agency it had."""
    derived = {
        "cluster_id": cluster.id,
        "source": cluster.name,
        "mode": "auto",
        "agency": cluster.last_agency,
        "on_unbound": "rebind",
    }
    return Cluster(**{**derived, "manager": manager, "cloud": cloud, **settings})

"""An emulated region, a Prefect server of these tests' own that knows its credentials, and a file of its clusters."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client

from deployments.emulated_blocks import cloud_block
from deployments.emulator.inventory import Cluster as EmulatedCluster
from deployments.emulator.region import Region
from deployments.inventory.inventory import WrongInventory, read_inventory
from deployments.inventory_commands import sync_blocks
from tasks.blocks import Cloud, Cluster, Manager
from tasks.fleet import documents_of
from tests.conftest import serving, serving_prefect
from tests.deployments.conftest import Ended, Runbooks

SECRETS = ("s3cret-read", "s3cret-change", "s3cret-new")


@dataclass(frozen=True)
class Stand:
    """A region, the file, and `runbooks clusters ...` in a process."""

    region: Region
    url: str
    path: Path
    client: PrefectClient
    run: Runbooks
    api: str
    said: pytest.CaptureFixture[str]

    @property
    def secrets(self) -> tuple[str, ...]:
        """What is never shown."""
        return *SECRETS, self.region.secret_key, self.region.reading_secret_key

    @property
    def clusters(self) -> list[EmulatedCluster]:
        """The region's clusters."""
        return list(self.region.clusters.values())

    def write(self, clusters: dict[str, Any], **sections: Any) -> None:
        """A file with these entries; JSON is YAML. Each entry is in a line of its own, from line 5 on."""
        head = {
            "clouds": {"here": {"read": "cloud-read", "change": "cloud-change"}},
            "logins": {"ops": {"read": "manager-read", "change": "manager-change"}},
            "defaults": {"cloud": "here", "login": "ops"},
            **sections,
        }
        lines = [f"{json.dumps(name)}: {json.dumps(value)}\n" for name, value in head.items()]
        lines += ["clusters:\n", *(f"  {json.dumps(name)}: {json.dumps(value)}\n" for name, value in clusters.items())]
        self.path.write_text("".join(lines))

    def entry(self, number: int, /, **more: Any) -> dict[str, Any]:
        """What the file says about a cluster."""
        cluster = self.clusters[number]
        manager = {"url": f"{self.url}/managers/{cluster.id}/web/api/v2"}
        return {"cluster_id": cluster.id, "source": cluster.name, "manager": manager, **more}

    async def __call__(self, *arguments: str) -> Ended:
        """Run `runbooks clusters` with these arguments; what it says holds no secret."""
        ended = await self.run("clusters", *arguments, PREFECT_API_URL=self.api)
        assert [secret for secret in self.secrets if secret in ended.out + ended.err] == []
        return ended

    async def sync(self, *, dry_run: bool = False) -> tuple[int, list[str]]:
        """What `runbooks clusters sync` does with the file: its exit code, and the lines it says, without secrets."""
        self.said.readouterr()
        try:
            code = await sync_blocks(read_inventory(self.path), dry_run=dry_run)
        except WrongInventory as error:
            return 2, error.lines
        shown = self.said.readouterr().out
        assert [secret for secret in self.secrets if secret in shown] == []
        return code, shown.splitlines()

    async def blocks(self) -> dict[str, list[str]]:
        """The names of all blocks of the kinds a sync writes."""
        kinds: dict[str, type[Block]] = {"cluster": Cluster, "manager": Manager}
        return {
            key: [each.name or "" for each in await documents_of(self.client, kind.get_block_type_slug())]
            for key, kind in kinds.items()
        }


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server whose clusters are those of one test at a time."""
    with serving_prefect(tmp_path_factory.mktemp("inventory")) as url:
        yield url


@pytest.fixture
async def stand(
    own_server: str, tmp_path: Path, runbooks: Runbooks, capsys: pytest.CaptureFixture[str], anyio_backend: str
) -> AsyncIterator[Stand]:
    """Three clusters, none of them connected; the blocks with the credentials are there. The region is only read."""
    region = Region(clusters=3, hosts=1)
    async with serving(region) as url, get_client() as client:
        kinds: tuple[type[Block], ...] = (Cluster, Manager, Cloud)
        for kind in kinds:
            for document in await documents_of(client, kind.get_block_type_slug()):
                await client.delete_block_document(document.id)
        keys = {"access_key": region.reading_access_key, "secret_key": region.reading_secret_key}
        await cloud_block(region, url, **keys).save("cloud-read", client=client)
        await cloud_block(region, url).save("cloud-change", client=client)
        for name in ("read", "change"):
            await Manager(url="https://unused", user=name, password=f"s3cret-{name}").save(
                f"manager-{name}", client=client
            )
        yield Stand(region, url, tmp_path / "clusters.yaml", client, runbooks, own_server, capsys)
        assert region.log == []

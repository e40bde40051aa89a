"""Everything of Prefect that the runbooks need, on one machine: a server, the forms, the deployments, a worker."""

from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from deployments.processes import last_words, prefect_server, python_process
from deployments.worker import NOTHING_TO_TEMPLATE, SegmentWorker
from tasks.errors import StepFailed

PREFECT_YAML = Path(__file__).with_name("prefect.yaml")
POOL, ALARMS, SWEEPS = "mrs-runbooks", "alarms", "sweeps"
WORKER = ("-m", "prefect", "worker", "start", "--pool", POOL, "--type", SegmentWorker.type)  # of Python


@asynccontextmanager
async def prefect_stack(
    folder: Path, say: Callable[[str], None], *, port: int = 0, grace: float = 0, forms: bool = False
) -> AsyncIterator[tuple[str, Process]]:
    """A Prefect server in `folder/prefect`, ready to run the runbooks.

    Yields its API URL, which this process uses too, and the worker.

    Args:
        say: gets a sentence of progress at a time.
        port: 0 takes a free one.
        forms: also make the forms in which blocks are filled in.
        grace: seconds that the processes get to end by themselves.

    Raises:
        StepFailed: the server, the forms or the deployments did not come up; carries their last words.
    """
    async with AsyncExitStack() as stack:
        say("starting a Prefect server of its own (a fresh one takes about ten seconds)")
        api = await stack.enter_async_context(prefect_server(folder, port=port, grace=grace))
        say(f"the Prefect server and its UI are up on {api.removesuffix('/api')}")
        stack.enter_context(temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: folder / "prefect"}))
        say("deploying deployments/prefect.yaml and starting a worker")
        async with get_client() as client:
            with suppress(ObjectAlreadyExists):
                await client.create_work_pool(
                    WorkPoolCreate(name=POOL, type=SegmentWorker.type, base_job_template=NOTHING_TO_TEMPLATE)
                )
                await client.create_work_queue(name=ALARMS, work_pool_name=POOL, priority=1)
                await client.create_work_queue(name=SWEEPS, work_pool_name=POOL, priority=3)
        working = await stack.enter_async_context(python_process(WORKER, folder, "worker", api, grace=grace))
        if forms:
            await _prefect(("block", "register", "--module", "tasks.blocks"), folder, "blocks", api)
        await _prefect(("--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_YAML)), folder, "deploy", api)
        yield api, working


async def _prefect(arguments: tuple[str, ...], folder: Path, name: str, api: str) -> None:
    async with python_process(("-m", "prefect", *arguments), folder, name, api) as process:
        if await process.wait():
            raise StepFailed(f"prefect {' '.join(arguments[:2])} failed: {last_words(folder, name)}")

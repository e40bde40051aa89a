"""`runbooks up`: Prefect server, worker and intake together, for one machine."""

import logging
import os
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from deployments.ending import collect_less, serve_until_told
from deployments.intake.service import intake
from deployments.intake.settings import read_settings
from deployments.processes import NO_PROXY, last_words
from deployments.stack import prefect_stack
from deployments.terminal import console, say
from tasks.errors import StepFailed
from tasks.home import home
from tasks.ledger.database import open_ledger

GRACE = 15.0  # seconds; a worker tells its runs to end


def up(
    *, config: Path | None = None, port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 4200
) -> None:
    """Run Prefect server, worker and intake on this machine, until Ctrl-C or SIGTERM.

    Prefect keeps its SQLite database in $RUNBOOKS_HOME/prefect and listens on 127.0.0.1 only. For more than a few
    clusters run a Prefect server on PostgreSQL, workers and `runbooks intake` by themselves.

    Parameters
    ----------
    config
        The intake's TOML file; the README shows one.
    port
        Of the Prefect server and its UI; 0 takes a free one.
    """
    settings = read_settings(config)
    out, began = console(), time.monotonic()
    os.environ.update(NO_PROXY)
    folder = home()

    def tell(text: str) -> None:
        say(out, f"{time.monotonic() - began:6.1f} s", text)

    async def run() -> None:
        async with prefect_stack(folder, tell, port=port, grace=GRACE, forms=True) as (api, worker):
            logging.getLogger("runbooks").setLevel(logging.INFO)  # Prefect's own begin at WARNING
            async with open_ledger() as ledger, intake(settings, ledger) as running:
                collect_less()
                where = ", ".join(f"{name} {number}" for name, number in running.ports.items())
                tell(f"the intake takes alarms in: {where}; {len(running.directory)} clusters are connected")
                if not len(running.directory):
                    tell(f"connect a cluster: {api.removesuffix('/api')}/blocks, MRS Cloud, MRS Manager, MRS Cluster")
                tell(f"Prefect's UI: {api.removesuffix('/api')}; logs: {folder}/*.log; Ctrl-C ends it")
                await worker.wait()
                raise StepFailed(f"the worker ended: {last_words(folder, 'worker')}: look at {folder}/worker.log")

    serve_until_told(run())

import asyncio, sys, subprocess, tempfile
from pathlib import Path
from sqlalchemy import make_url
from tasks.ledger.database import DRIVERS, open_ledger
from tests.bench.fleet import know
from tests.bench.ledgers import *
from tests.bench.servers import intake_process, upgrade
import tests.bench.ledgers as L
async def main(which):
    with tempfile.TemporaryDirectory() as d:
        d=Path(d); url=f"sqlite:///{d}/ledger.db"
        async with open_ledger(make_url(url).set(drivername=DRIVERS["sqlite"])) as ledger:
            await know(ledger, CLUSTERS)
            async with intake_process(d, url) as intake:
                pid = getattr(intake,'pid',None) or intake.process.pid
                p = subprocess.Popen(["/tmp/spy/bin/py-spy","record","-p",str(pid),"-d","12","-r","250","--gil","-f","raw","-o",f"/tmp/prof-{which}.txt"],stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL)
                print(await getattr(L,which)("sqlite",ledger,intake,12))
                p.wait()
asyncio.run(main(sys.argv[1]))

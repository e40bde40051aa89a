"""The alarm pages that have a runbook, in our words: their graph, what they mean, and what a person does by hand."""

from collections.abc import Mapping
from datetime import timedelta
from importlib.resources import files

from tasks.evidence import Page
from tasks.forms import BY_HAND
from tasks.graph import read_graph

ALM_12110 = Page(
    alarm_id="12110",
    title="Failed to get ECS temporary AK/SK",
    graph=read_graph(files("flows").joinpath("procedures/ALM-12110.json")),
    impact="jobs that read or write OBS fail as soon as the last temporary keys expire, at most one hour after they "
    "were issued",
    by_hand={
        "1": "On Manager, O&M > Alarm > Alarms: find ALM-12110 and the IP address of its host (and see O&M > Alarm > "
        "Masking).",
        "2": "On Manager, Cluster > Services > Meta > Instance: see whether the instance of this host is normal; if it "
        "was stopped on purpose, ask who did it.",
        "3": BY_HAND["restart"],
        "5": "On the MRS console, Clusters > Active Clusters > this cluster, O&M management: see whether an agency is "
        "bound, and on each node's ECS page which one.",
        "6": BY_HAND["rebind"],
        "7": "Hand over to O&M with /var/log/Bigdata/meta/mrs-meta.log of this host, one hour before to one hour after "
        "the alarm (O&M > Log > Download, service Meta).",
    },
    log="/var/log/Bigdata/meta/mrs-meta.log",
    felt_within=timedelta(minutes=50),
    felt_because="the last keys live one hour and were issued ten minutes before the alarm or earlier, for Meta asks "
    "every five minutes and raises it at the third failure in a row; most likely they end five minutes earlier",
)

PAGES: Mapping[str, Page] = {page.alarm_id: page for page in (ALM_12110,)}

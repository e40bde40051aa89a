"""The Meta service: on each host it asks every 5 minutes for temporary keys, and raises ALM-12110 when it gets none.

Source: the page of ALM-12110: asked every 5 minutes, raised after three failures in a row, cleared by the first
success. A host whose polls can only repeat what they said last is *settled* and costs nothing; whoever changes the
world wakes it first, so that what is observable is as if every host polled every 5 minutes.
"""

import json
import math
from collections.abc import Iterable
from datetime import datetime

from deployments.emulator.alarms import ECS_KEYS, IAM_TOKEN, Alarms
from deployments.emulator.clock import Clock
from deployments.emulator.faults import Faults
from deployments.emulator.inventory import POLL_SECONDS, Host
from deployments.emulator.metadata import KEY_PATH, NO_AGENCY, TOKEN_PATH, Credential, MetadataService

FAILURES_TO_ALARM = 3
BROKEN = ("crashed", "wedged", "restart-clears-only", "host-down")


class Meta:
    """The Meta instances of the region."""

    def __init__(self, clock: Clock, faults: Faults, service: MetadataService, alarms: Alarms) -> None:
        self._clock = clock
        self._faults = faults
        self._service = service
        self._alarms = alarms

    def wake(self, hosts: Iterable[Host]) -> None:
        """Make these hosts poll again at their next turn. Call it before the world changes for them."""
        for host in hosts:
            if host.instance_id is None or host.restarting or host.next_poll is not None:
                continue
            turns = math.floor((self._clock.elapsed - host.polls_from) / POLL_SECONDS)
            last = host.polls_from + turns * POLL_SECONDS
            if host.healthy:
                host.succeeded = last
                host.issuer = (host.metadata.get("agency_name", ""), host.bound_since)
            self._plan(host, last + POLL_SECONDS)

    def status(self, host: Host) -> str:
        """The true running status of the instance, in the words of Manager's instance page."""
        if host.restarting:
            return "Starting"
        if host.failed_to_start:
            return "Failed to start"
        broken = [name for name in BROKEN if self._faults.find(name, *host.place)]
        if not broken or (broken == ["restart-clears-only"] and host.soothed):
            return "Normal"
        return "Faulty"

    def reported(self, host: Host, source: str) -> str:
        """The running status as `source` (manager or nodes) reports it, true or not."""
        stale = self._faults.find("status-stale", *host.place) if source == "nodes" else None
        if stale and host.server_id in stale.before:
            return stale.before[host.server_id]
        lie = self._faults.find("status", *host.place)
        if lie and lie.text("source", "both") in (source, "both"):
            return lie.text("value", "Unknown")
        return self.status(host)

    def credential(self, host: Host) -> Credential | None:
        """The keys the instance holds; None after a restart until its first successful poll, or without an instance."""
        settled = host.next_poll is None and host.healthy and not host.restarting
        if host.instance_id is None:
            return None
        if settled:
            turns = math.floor((self._clock.elapsed - host.polls_from) / POLL_SECONDS)
            last = host.polls_from + turns * POLL_SECONDS
            return self._service.issue(host, host.metadata.get("agency_name", ""), host.bound_since, last)
        return self._service.issue(host, *host.issuer, host.succeeded) if host.issuer else None

    def stop(self, host: Host) -> None:
        """The process ends: no polls until `start`."""
        if host.next_poll is not None:
            host.next_poll.cancelled = True
            host.next_poll = None

    def start(self, host: Host) -> None:
        """The process begins: counters are reset, keys forgotten, and the first poll is one full period away."""
        host.failures = host.iam_failures = host.flaps = 0
        host.healthy = False
        host.issuer = None
        host.started_ms = self._alarms.manager_ms(host.cluster)
        host.polls_from = self._clock.elapsed + POLL_SECONDS
        self._plan(host, host.polls_from)

    def _plan(self, host: Host, when: float) -> None:
        host.next_poll = self._clock.at(when, lambda: self._poll(host))

    def _poll(self, host: Host) -> None:
        host.next_poll = None
        failure = self._ask(host)
        host.healthy = failure is None
        if failure is None:
            host.failures = host.iam_failures = 0
            host.succeeded = self._clock.elapsed
            host.issuer = (host.metadata["agency_name"], host.bound_since)
            self._alarms.clear_all(host)
        else:
            host.failures += 1
            host.iam_failures = host.iam_failures + 1 if failure == "iam" else 0
            self._raise(host)
        if not self._settled(host, failure):
            self._plan(host, self._clock.elapsed + POLL_SECONDS)

    def _raise(self, host: Host) -> None:
        for alarm_id, failures in ((ECS_KEYS, host.failures), (IAM_TOKEN, host.iam_failures)):
            if failures >= FAILURES_TO_ALARM and alarm_id not in host.active:
                self._alarms.raise_alarm(host, alarm_id)
                host.soothed = False

    def _settled(self, host: Host, failure: str | None) -> bool:
        if self._faults.find("flapping", *host.place):
            return False
        if failure is None:
            return True
        waiting = self._faults.find("agency-slow", *host.place) is not None
        return ECS_KEYS in host.active and (failure != "iam" or IAM_TOKEN in host.active) and not waiting

    def _ask(self, host: Host) -> str | None:
        """One poll: None if keys came, else which layer failed: meta, ecs, agency or iam."""
        if host.failed_to_start or any(self._faults.find(name, *host.place) for name in BROKEN):
            return "meta"
        if self._faults.find("flapping", *host.place):
            host.flaps += 1
            if host.flaps % 4:
                return "ecs"
        answer = self._service.request(host, "GET", KEY_PATH)
        if answer.status == 401 and NO_AGENCY not in answer.body:
            # Hardened mode: a 401 without the sentence about the agency asks for a token.
            token = self._service.request(host, "PUT", TOKEN_PATH, {"X-Metadata-Token-Ttl-Seconds": "60"}).body
            answer = self._service.request(host, "GET", KEY_PATH, {"X-Metadata-Token": token})
        if answer.status == 200:
            expires = json.loads(answer.body)["credential"]["expires_at"]
            return None if datetime.fromisoformat(expires) > self._clock.now else "ecs"
        return {401: "agency", 502: "iam"}.get(answer.status, "ecs")

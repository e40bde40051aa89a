"""Manager's commands: restarting Meta instances takes time, may fail, and only one command runs at a time."""

from deployments.emulator.alarms import Alarms
from deployments.emulator.clock import Clock
from deployments.emulator.faults import Faults
from deployments.emulator.inventory import Cluster, Command, Host
from deployments.emulator.meta import Meta

RESTART_SECONDS = 60.0
SLOW_RESTART_SECONDS = 1200.0
DUPLICATE_OFFSET = 100_000
"""Added to an instance id for the second entry of a duplicated instance."""


class CommandRunning(Exception):
    """Another command of this Manager is in progress."""


class UnknownInstance(Exception):
    """No instance has this id."""


class Commands:
    """Starts and finishes commands on the Managers of the region."""

    def __init__(self, clock: Clock, faults: Faults, meta: Meta, alarms: Alarms) -> None:
        self._clock = clock
        self._faults = faults
        self._meta = meta
        self._alarms = alarms

    def restart(self, cluster: Cluster, instance_ids: list[int]) -> tuple[Command, list[Host]]:
        """Restart Meta instances; answers the command and the hosts it acts on.

        Raises:
            UnknownInstance: one of the ids is not listed; nothing is restarted.
            CommandRunning: another command is in progress.
        """
        by_id = {host.instance_id: host for host in cluster.hosts.values() if host.instance_id is not None}
        hosts: dict[str, Host] = {}
        for number in instance_ids:
            host = by_id.get(number) or by_id.get(number - DUPLICATE_OFFSET)
            if host is None or self._faults.find("host-unlisted", *host.place):
                raise UnknownInstance(number)
            hosts[host.name] = host
        # A command whose id was lost in an OMS switchover runs on.
        if self.running(cluster) or any(host.restarting for host in cluster.hosts.values()):
            raise CommandRunning(", ".join(command.name for command in self.running(cluster)))
        slow = [fault for host in hosts.values() if (fault := self._faults.find("slow-restart", *host.place))]
        seconds = max([RESTART_SECONDS, *(fault.seconds(SLOW_RESTART_SECONDS) for fault in slow)])
        command = self._begin(cluster, "Restart Instance", seconds)
        for host in hosts.values():
            self._meta.stop(host)
            host.restarting = True
        self._clock.after(seconds, lambda: self._finish(cluster, command, list(hosts.values())))
        return command, list(hosts.values())

    def running(self, cluster: Cluster) -> list[Command]:
        """The commands in progress, the one of the fault `command-running` included."""
        return [command for command in self.listed(cluster) if command.state == "IN_PROGRESS"]

    def listed(self, cluster: Cluster) -> list[Command]:
        """Every command Manager still knows, newest first."""
        commands = list(cluster.commands.values())
        if self._faults.find("command-running", cluster.id):
            commands.append(Command(1, "Synchronize Configuration", self._alarms.manager_ms(cluster), 0, 0))
        return sorted(commands, key=lambda command: command.id, reverse=True)

    def progress(self, command: Command) -> int:
        """Percent done."""
        if command.state != "IN_PROGRESS":
            return 100
        passed = self._clock.elapsed - command.began
        return min(99, int(100 * passed / command.expected_seconds)) if command.expected_seconds else 50

    def _begin(self, cluster: Cluster, name: str, seconds: float) -> Command:
        number = cluster.next_command
        cluster.next_command += 1
        command = Command(number, name, self._alarms.manager_ms(cluster), seconds, self._clock.elapsed)
        cluster.commands[number] = command
        return command

    def _finish(self, cluster: Cluster, command: Command, hosts: list[Host]) -> None:
        for host in hosts:
            host.restarting = False
            if cluster.hosts.get(host.name) is not host:  # scaled in meanwhile
                continue
            failed = self._faults.find("restart-fails", *host.place) or self._faults.find("host-down", *host.place)
            if failed:
                command.failed.append(host.name)
            host.failed_to_start = bool(failed)
            if not failed:
                self._faults.clear("crashed", host.place)
            self._meta.start(host)
            if not failed and self._faults.find("restart-clears-only", *host.place):
                host.soothed = True
                self._alarms.clear_all(host)
        command.state = "FAILED" if command.failed else "COMPLETE"
        command.ended_ms = self._alarms.manager_ms(cluster)

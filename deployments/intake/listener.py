"""The ears of the syslog intake: lines from UDP, TCP and TLS, handed on. What they mean is not decided here."""

import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, get_args

from deployments.intake.framing import Counters
from deployments.intake.group import task_group
from deployments.intake.sockets import Datagrams, OnLines, Sink, Streams
from deployments.intake.syslog import MAX_LINE

Protocol = Literal["udp", "tcp", "tls"]

_ADVICE = {
    errno.EADDRINUSE: "another program holds the port; stop it or choose another port",
    errno.EACCES: "not permitted; choose a port above 1023 or grant CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose one of its own or 0.0.0.0",
}


@contextmanager
def _explained(protocol: Protocol, host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, f"{error}; check the address and the port")
        raise OSError(error.errno, f"cannot listen on {host}:{port} ({protocol}): {advice}") from error


def _bound(protocol: Protocol, host: str, port: int) -> socket.socket:
    """A socket on that port; on an IPv6 address it hears IPv4 as well where that address means every one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    with _explained(protocol, host, port):
        if protocol != "udp":
            return socket.create_server((host, port), family=family, dualstack_ipv6=both)
        with ExitStack() as unless_bound:
            bound = unless_bound.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            if both:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            bound.bind((host, port))
            unless_bound.pop_all()
        return bound


@asynccontextmanager
async def listen(
    *,
    host: str,
    ports: Mapping[Protocol, int],
    allowed: Sequence[IPv4Network | IPv6Network],
    on_lines: OnLines,
    counters: Counters | None = None,
    tls: ssl.SSLContext | None = None,
    handshake_timeout: float = 10,
    max_line: int = MAX_LINE,
    max_connections: int = 64,
    queue_size: int = 10_000,
) -> AsyncIterator[Mapping[Protocol, int]]:
    """Listen while the ``async with`` block runs; yields the bound port of each protocol, say ``{"udp": 5140}``.

    TCP and TLS lose nothing while ``on_lines`` is busy, for their peers are made to wait; UDP keeps ``queue_size``
    datagrams and drops the rest. Leaving the block closes every connection and cancels what ``on_lines`` is doing.

    Args:
        host: the IP address to bind.
        ports: the port to bind for each protocol, not empty; 0 lets the system choose one.
        allowed: the networks that may send; none: nobody.
        on_lines: awaited with lines (bytes, no line end, not empty; or what is known of one given up) and their
            peers' IP addresses, at most 1,000 at a time. Those of one connection come one batch after the other,
            those of different connections and of UDP at the same time.
        counters: counts what happens; pass one to read it.
        tls: the server's certificate, and whom it trusts; for the protocol ``tls`` (RFC 5425).
        handshake_timeout: seconds a TLS peer may take until lines can come.
        max_line: bytes; a longer line is given up, its connection lives on.
        max_connections: connections at a time, of TCP and of TLS each.
        queue_size: datagrams that may wait for ``on_lines``.

    Raises:
        ValueError: no protocol, an unknown one, or ``tls`` without its context.
        OSError: the port cannot be bound; says where and what to do.
        Exception: what ``on_lines`` raised, an ``ExceptionGroup`` if several did; it cancels the block, because a
            listener whose lines go nowhere must not look alive.
    """
    if not ports or not set(ports) <= set(get_args(Protocol)):
        raise ValueError(f"ports: expected some of udp, tcp and tls, got {list(ports)}")
    if "tls" in ports and tls is None:
        raise ValueError("ports: tls needs a certificate; pass it in tls")
    sink = Sink(on_lines, allowed, Counters() if counters is None else counters, max_line)
    bound_ports: dict[Protocol, int] = {}
    async with task_group() as group:
        with ExitStack() as opened:
            for protocol, port in ports.items():
                bound = _bound(protocol, host, port)
                bound_ports[protocol] = bound.getsockname()[1]
                ear: Datagrams | Streams
                if protocol == "udp":
                    ear = Datagrams(sink, group, bound, queue_size)
                else:
                    context = tls if protocol == "tls" else None
                    ear = Streams(sink, group, bound, max_connections, context, handshake_timeout)
                ear.start()
                opened.callback(ear.close)
            yield bound_ports

"""TLS for those who accept connections: what the files of the configuration say, and a connection without buffers."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from deployments.intake.settings import Tls
from tasks.errors import ConfigurationError

_READ = 64 * 1024
_Answer = TypeVar("_Answer")


def server_context(tls: Tls) -> ssl.SSLContext:
    """What a TLS server needs; with a client CA, who shows no certificate of it is turned away.

    Raises:
        ConfigurationError: a file is missing, or is not what it should be; says which.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (OSError, ValueError) as error:
        why = f"tls: no certificate with its key in {tls.certificate} and {tls.key} ({error})"
        raise ConfigurationError(f"{why}: both are PEM files, the key without a password") from error
    if tls.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(tls.client_ca)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"tls: no CA in {tls.client_ca} ({error}): name a PEM file") from error
    return context


def _no_password() -> str:
    """OpenSSL would ask for one on the terminal."""
    raise ValueError("it has a password")


class Secured:
    """The server's side of TLS on a connection, which is read only when bytes are asked for."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def shake_hands(self) -> None:
        """Agree on everything; an OSError if that comes to nothing."""
        await self._done(self._session.do_handshake)

    async def read(self, most: int) -> bytes:
        """Return at least one byte and at most so many, none at the end; an OSError if it ends without a goodbye."""
        return await self._done(partial(self._decrypted, most))

    def _decrypted(self, most: int) -> bytes:
        data = self._session.read(most)
        with suppress(ssl.SSLError):  # no more for now; an error comes again with the next read
            while len(data) < most and (more := self._session.read(most - len(data))):  # a record holds 16 KiB at most
                data += more
        return data

    async def _done(self, step: Callable[[], _Answer]) -> _Answer:
        """Take a step, once enough has arrived for it."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            finally:
                if answer := self._outgoing.read():
                    await self._loop.sock_sendall(self._connection, answer)
            if data := await self._loop.sock_recv(self._connection, _READ):
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

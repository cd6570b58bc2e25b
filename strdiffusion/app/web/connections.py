"""Connections that say nothing, or too slowly: uvicorn would wait for the rest of a request's head without end."""

import asyncio
import logging

log = logging.getLogger(__name__)


def impatient(protocol: type, seconds: float) -> type:
    """A protocol class of uvicorn's (its setting `http`) that closes connections on which nothing is asked in time.

    A connection has so many seconds until the head of its first request is complete, and of each further one from its first byte on.
    While a request is answered nothing is closed; its body has the guard's limits.
    """

    class Impatient(protocol):
        closing: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.wait_or_rest()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.wait_or_rest()

        def connection_lost(self, error: Exception | None) -> None:
            self.rest()
            super().connection_lost(error)

        def wait_or_rest(self) -> None:
            """Begin to wait for a request, unless it is waited for already, or one is answered."""
            answers = self.cycle is not None and not self.cycle.response_complete
            if answers:
                self.rest()
            elif self.closing is None:
                self.closing = asyncio.get_running_loop().call_later(seconds, self.transport.close)

        def rest(self) -> None:
            if self.closing is not None:
                self.closing.cancel()
                self.closing = None

    return Impatient


def hasten(server: object, seconds: float) -> None:
    """Let a running uvicorn server close such connections: all that are made from now on."""
    if hasattr(protocol := server.config.http_protocol_class, "timeout_keep_alive_handler"):  # uvicorn's protocols of HTTP/1
        server.config.http_protocol_class = impatient(protocol, seconds)
    else:
        log.warning("this uvicorn has another protocol: let a proxy stand before a page that strangers reach")

"""A relay that keeps all bytes of its connections."""

from __future__ import annotations

import contextlib
import socket
import threading


class Recorder:
    """Joins each of its connections with one to a port of 127.0.0.1."""

    def __init__(self, to_port: int) -> None:
        self._to = to_port
        self._talks: list[tuple[bytearray, bytearray]] = []
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def talks(self) -> list[tuple[bytes, bytes]]:
        """Bytes that each connection carried, to the server and back, sorted."""
        return sorted((bytes(asked), bytes(answered)) for asked, answered in self._talks if asked or answered)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for one in (self._server, *self._open):
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += (client, server)
                kept = (bytearray(), bytearray())
                self._talks.append(kept)
                for source, sink, seen in ((client, server, kept[0]), (server, client, kept[1])):
                    threading.Thread(target=_pass, args=(source, sink, seen), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            seen += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

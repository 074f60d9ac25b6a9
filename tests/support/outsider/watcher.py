"""Witness inside the stack: prints a line for all that its connections meet.

It sends requests to each container by its address. Standard library only.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time

PORT, EVERY_S, PATIENCE_S = 9000, 0.1, 3.0
CHAT = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "?"}]}'
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: brain\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
LOOK = b"GET / HTTP/1.1\r\nhost: brain\r\n\r\n"


def note(**line: object) -> None:
    text = json.dumps({"at": time.time(), **line})
    os.write(1, f"{text}\n".encode())  # whole lines, from all threads


def chats(address: str) -> None:
    """One conversation after the other, each on a connection of its own."""
    while True:
        began = time.time()
        note(to=address, chat=chat(address), began=began)
        time.sleep(EVERY_S)


def chat(address: str) -> str:
    got = b""
    try:
        with socket.create_connection((address, PORT), timeout=PATIENCE_S) as connection:
            connection.sendall(POST % (len(CHAT), CHAT))
            while piece := connection.recv(65536):
                got += piece
    except TimeoutError:
        return "late"
    except OSError as error:
        return type(error).__name__
    if got.endswith(b"data: [DONE]\n\n") and b'"stop"' in got:
        return "whole"
    return "truncated" if got.startswith(b"HTTP/1.1 200") else "other"


def keep(name: str, address: str) -> None:
    """One connection for all time, opened before any fault."""
    with socket.create_connection((address, PORT), timeout=PATIENCE_S) as connection:
        note(to=address, kept="opened", name=name)
        looks = 0
        while True:
            try:
                connection.sendall(LOOK)
                answer = b""
                while not answer.endswith(b"\r\n\r\nok"):
                    piece = connection.recv(4096)
                    if not piece:
                        raise ConnectionError("ended")
                    answer += piece
            except OSError as error:
                note(to=address, kept="broken", name=name, why=str(error))
                return
            looks += 1
            if looks % 10 == 0:
                note(to=address, kept="alive", name=name, looks=looks)
            time.sleep(EVERY_S)


def addresses(name: str, least: int) -> list[str]:
    """Addresses of a service, once it has that many."""
    while True:
        try:
            found = {str(about[4][0]) for about in socket.getaddrinfo(name, PORT, socket.AF_INET)}
        except OSError:
            found = set()
        if len(found) >= least:
            return sorted(found)
        time.sleep(EVERY_S)


def main() -> None:
    brains, (notes,) = addresses("brain", 2), addresses("notes", 1)
    threads = [
        threading.Thread(target=keep, args=about) for about in (("notes", notes), *(("brain", one) for one in brains))
    ]
    threads += [threading.Thread(target=chats, args=(one,)) for one in brains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


main()

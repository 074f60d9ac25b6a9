"""A misbehaving server for clients, on raw sockets.

The first word of a prompt selects the behaviour.
"""

import asyncio
import json
import threading
import time
from hashlib import sha256

from pytest_llmchaos.host.ports import http_url, loopback

OPEN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Llmlab-Replica: model-1\r\nTransfer-Encoding: chunked\r\n\r\n"


def tokens_of(prompt, count):
    return [sha256((prompt + "\x1f" + str(i)).encode("utf-8")).hexdigest()[:6] + " " for i in range(count)]


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(delta, finish=None, end=b"\n\n"):
    body = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(body).encode() + end


def refusal(status, more=b""):
    return b"HTTP/1.1 %d Sorry\r\n%bContent-Length: 2\r\n\r\n{}" % (status, more)


class Server:
    """Answers on loopback from a thread of its own.

    `wrote_s` is when the first token of each request id left, `gone_s` when a client of
    `silent` closed its connection.
    """

    def __init__(self):
        self.wrote_s = {}
        self.gone_s = {}
        self.seen = []
        self.pushed = []
        self.push_status = 200
        self.ready_status = 200
        self.looked = []
        self.push_s = 0.0
        self.pushing = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, loopback(), 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = http_url(loopback(), self.port)
        return self

    def __exit__(self, *_):
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _shut(self):
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader, writer):
        answered = 0
        try:
            while await self._one(reader, writer, answered):
                answered += 1
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader, writer, answered):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if first.startswith("GET"):
            self.looked.append((first.split()[1], headers))
            writer.write(refusal(self.ready_status))
            return True
        if first.startswith("PUT"):
            self.pushing += 1
            await asyncio.sleep(self.push_s)
            self.pushing -= 1
            self.pushed.append((time.monotonic(), first.split()[1], body.decode()))
            writer.write(b"HTTP/1.1 %d OK\r\nContent-Length: 0\r\n\r\n" % self.push_status)
            return True
        asked = json.loads(body)
        self.seen.append((headers, asked))
        prompt, count = asked["messages"][-1]["content"], asked["max_tokens"]
        if not asked["stream"]:
            return self._whole(writer, prompt, count)
        answer = _Stream(self, (reader, writer), headers["x-request-id"], tokens_of(prompt, count))
        answer.answered = answered
        return await getattr(answer, prompt.split()[0])()

    def _whole(self, writer, prompt, count):
        choice = {"message": {"content": "".join(tokens_of(prompt, count))}, "finish_reason": "length"}
        body = json.dumps({"choices": [choice], "usage": {"completion_tokens": count}}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        return True


class _Stream:
    """One behaviour per method. True keeps the connection open for the next request."""

    def __init__(self, server, connection, request_id, tokens):
        self.server, self.request_id, self.tokens = server, request_id, tokens
        self.reader, self.writer = connection

    def send(self, *events):
        self.writer.write(b"".join(map(chunk, events)))

    async def finished(self, tokens, *, end=b"\n\n", done=b"data: [DONE]\n\n"):
        self.writer.write(OPEN)
        await asyncio.sleep(0.02)
        self.server.wrote_s[self.request_id] = time.monotonic()
        for i, token in enumerate(tokens):
            self.send(event({"content": token}, "length" if i == len(tokens) - 1 else None, end))
            await asyncio.sleep(0.002)
        self.writer.write(chunk(done) + b"0\r\n\r\n")
        return True

    async def ok(self):
        return await self.finished(self.tokens)

    async def crlf(self):
        return await self.finished(self.tokens, end=b"\r\n\r\n", done=b"data: [DONE]\r\n\r\n")

    async def role(self):
        self.writer.write(OPEN)
        self.send(event({"role": "assistant", "content": ""}))
        await asyncio.sleep(0.1)
        self.server.wrote_s[self.request_id] = time.monotonic()
        self.send(*(event({"content": token}) for token in self.tokens), event({}, "stop"), b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")
        return True

    async def gap(self):
        self.writer.write(OPEN)
        self.send(event({"content": self.tokens[0]}))
        for _ in range(3):
            await asyncio.sleep(0.1)
            self.send(b": still here\n\n")
        self.send(*(event({"content": token}) for token in self.tokens[1:]), event({}, "stop"), b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")
        return True

    async def split(self):
        whole = b"".join(event({"content": token}) for token in self.tokens) + event({}, "stop") + b"data: [DONE]\n\n"
        self.writer.write(OPEN)
        for at in range(0, len(whole), 61):
            self.send(whole[at : at + 61])
            await asyncio.sleep(0.001)
        self.writer.write(b"0\r\n\r\n")
        return True

    async def nodone(self):
        return await self.finished(self.tokens, done=b"\n")

    async def nofinish(self):
        self.writer.write(OPEN)
        self.send(*(event({"content": token}) for token in self.tokens), b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")
        return True

    async def cleanend(self):
        self.writer.write(OPEN)
        self.send(*(event({"content": token}) for token in self.tokens[:-1]))
        self.writer.write(b"0\r\n\r\n")
        return True

    async def cut(self):
        self.writer.write(OPEN)
        self.send(event({"content": self.tokens[0]}))
        return False

    async def short(self):
        return await self.finished(self.tokens[:-1])

    async def wrong(self):
        return await self.finished([*self.tokens[:-1], "000000 "])

    async def double(self):
        return await self.finished([*self.tokens, self.tokens[-1]])

    async def malformed(self):
        self.writer.write(OPEN)
        self.send(event({"content": self.tokens[0]}), b'data: {"choices": [\n\n', b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")
        return True

    async def error(self):
        self.writer.write(OPEN)
        self.send(
            event({"content": self.tokens[0]}),
            b'data: {"error": {"message": "upstream died"}}\n\n',
            b"data: [DONE]\n\n",
        )
        self.writer.write(b"0\r\n\r\n")
        return True

    async def pings(self):
        """A complete answer, then comments forever."""
        self.writer.write(OPEN)
        self.send(*(event({"content": token}) for token in self.tokens), event({}, "stop"), b"data: [DONE]\n\n")
        return await self.for_ever(b": ping\n\n", 0.02)

    async def endless(self):
        self.writer.write(OPEN)
        return await self.for_ever(b"x" * 65536, 0)

    async def for_ever(self, data, every_s):
        try:
            while not self.reader.at_eof():
                self.send(data)
                await self.writer.drain()
                await asyncio.sleep(every_s)
        except ConnectionError:
            pass
        self.server.gone_s[self.request_id] = time.monotonic()
        return False

    async def stale(self, after_s=0.0):
        """Close a reused connection when the next request comes."""
        if not self.answered:
            return await self.ok()
        await asyncio.sleep(after_s)
        return False

    async def late(self):
        """Close a reused connection while the client waits for the answer."""
        return await self.stale(0.6)

    async def s500(self):
        self.writer.write(refusal(500))
        return True

    async def s503(self):
        self.writer.write(refusal(503))
        return True

    async def s404(self):
        self.writer.write(refusal(404))
        return True

    async def s307(self):
        self.writer.write(b"HTTP/1.1 307 Elsewhere\r\nLocation: /v1/chat/completions\r\nContent-Length: 0\r\n\r\n")
        return True

    async def s429(self):
        self.writer.write(refusal(429, b"Retry-After: 2\r\n"))
        return True

    async def stall(self):
        self.writer.write(OPEN)
        self.send(*(event({"content": token}) for token in self.tokens[:2]))
        await asyncio.sleep(60)

    async def trickle(self):
        self.writer.write(OPEN)
        for _ in range(600):
            self.send(event({"content": "x"}))
            await asyncio.sleep(0.05)

    async def silent(self):
        await self.reader.read(1)
        self.server.gone_s[self.request_id] = time.monotonic()
        return False

    async def hang(self):
        self.writer.write(OPEN)
        await asyncio.sleep(60)

    async def reset(self):
        return False

    async def garbage(self):
        self.writer.write(b"\x15\x03\x01 what is this?\r\n\r\n")
        return False

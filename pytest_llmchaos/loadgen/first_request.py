"""First request to a user's stack, which finds out why a load would fail.

It also makes metrics appear that a service exports only after a request.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence.redaction import redact
from pytest_llmchaos.host.http_client import Reply, check_tls, exchange
from pytest_llmchaos.loadgen.dialects import FORMATS
from pytest_llmchaos.model import TLS_UNVERIFIED
from pytest_llmchaos.subject.request_body import Body
from pytest_llmchaos.subject.requests import (
    DIALECTS,
    PATHS,
    Dialect,
    Requests,
    authority,
    certificate_name,
    head_of,
)

if TYPE_CHECKING:
    from pytest_llmchaos.subject.lab import Subject

PROMPT, MAX_TOKENS = "Count to ten.", 16
MOST_BYTES = 2**20
EXCERPT = 200  # characters
# The service may still load its model, or be behind a proxy that is faster to start.
LOADING = (429, 502, 503, 504)
# A service without a health check may not listen yet.
REFUSED_S = 60.0
RETRY_S = 0.5
_PROBE_S = 10.0
# Other paths of the same APIs, tried after a 404.
_OTHER_PATHS: tuple[tuple[Dialect, str], ...] = (
    *((dialect, PATHS[dialect]) for dialect in DIALECTS),
    ("chat", "/api/chat/completions"),
    ("chat", "/chat/completions"),
    ("chat", "/api/v1/chat/completions"),
    ("chat", "/openai/v1/chat/completions"),
    ("chat", "/openai/chat/completions"),
)
_UNKNOWN_MODEL = re.compile(
    r"(?is)model[^.]{0,80}(not found|not exist|unknown|invalid|unsupported|no such|not available|pull)"
    r"|(unknown|invalid|no such|unsupported)[^.]{0,20}model|model_not_found"
)

_WANTS_TLS = re.compile(r"(?i)http request (was )?(sent )?to (an )?https|plain http")
_SET_TLS = 'set llmchaos_tls to its CA file, to "system" or to "unverified"'


class Problem(NamedTuple):
    """Why the load would fail.

    Attributes:
        text: one line.
        patience_s: seconds in which it may pass by itself, 0 if it will not.
    """

    text: str
    patience_s: float = 0.0


def require_answer(url: str, subject: Subject, note: Callable[[str], None]) -> None:
    """Send a request like the load's until it has a good answer.

    A service that is still loading has `startup_s` of the subject for it.

    Args:
        url: address of the service that takes the clients' requests.
        subject: the stack.
        note: takes a line for the request, and one for each problem that may pass.

    Raises:
        NotReady: the load would fail. The message has the cause, and what to change.
    """
    begin, last = time.monotonic(), ""
    first = _FirstRequest(url, subject)
    note(f"first request to {subject.api}: its answer may take {subject.startup_s:g} s")
    while (problem := first.problem(max(1.0, begin + subject.startup_s - time.monotonic()))) is not None:
        waited_s = time.monotonic() - begin
        if waited_s >= min(problem.patience_s, subject.startup_s):
            after = f" after {waited_s:.0f} s" if problem.patience_s else ""
            raise NotReady(f"the first request to {subject.api} failed{after}: {problem.text}") from None
        if problem.text != last:
            note(f"waiting for {subject.api}: {problem.text}")
            last = problem.text
        time.sleep(RETRY_S)


def check_requests(requests: Requests) -> None:
    """Check variables and CA file before anything starts.

    Raises NotReady with both problems.
    """
    problems = []
    for check in (lambda: requests.resolve(os.environ), lambda: check_tls(requests.tls)):
        try:
            check()
        except NotReady as error:
            problems.append(str(error))
    if problems:
        raise NotReady("\n".join(problems))


class _FirstRequest:
    """Sends requests and explains their answers. Its texts contain no secret."""

    def __init__(self, url: str, subject: Subject) -> None:
        self._requests, self._model = subject.requests, subject.model
        self._url = subject.requests.address(url)
        self._secrets = subject.requests.secrets(os.environ)

    def problem(self, timeout_s: float) -> Problem | None:
        """Send the request once. None if its answer is good."""
        try:
            reply = self._send(self._requests, timeout_s)
        except ConnectionError as error:
            return self._of_connection(str(error))
        if 200 <= reply.status < 300:
            text = self._of_stream(reply)
            return None if text is None else Problem(text)
        if reply.status in LOADING:
            return Problem(f"{self._answered(reply)}: it may still be loading", math.inf)
        return Problem(self._of_status(reply))

    def _send(self, requests: Requests, timeout_s: float, *, get: str = "", url: str = "") -> Reply:
        """Send one request: a POST like the load's, or a GET of the path `get`."""
        sent = requests.resolve(os.environ)
        url = url or self._url
        content = None if get else Body(requests, self._model).of(PROMPT, MAX_TOKENS)
        return exchange(
            "GET" if get else "POST",
            url.rstrip("/") + (get or sent.path),
            tls=requests.tls or TLS_UNVERIFIED,
            name=certificate_name(url, sent.host),
            timeout_s=timeout_s,
            most_bytes=MOST_BYTES,
            headers={
                "Host": authority(url, sent.host),
                **head_of(sent.headers),
                **({} if content is None else {"Content-Length": str(len(content))}),
            },
            content=content,
        )

    def _answered(self, reply: Reply) -> str:
        words = self._words(reply)
        return f"POST {self._requests.path} got {reply.status}" + (f", {words!r}" if words else " without a body")

    def _words(self, reply: Reply) -> str:
        """The server's words in one line. Secrets are hidden before the cut."""
        if _coding(reply) or not _is_text(reply.body):
            return f"{len(reply.body)} bytes of {reply.headers.get('content-type', 'an unknown type')}"
        text = redact(reply.body.decode(errors="replace"), self._secrets)
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= EXCERPT else f"{line[:EXCERPT]}..."

    def _of_status(self, reply: Reply) -> str:
        words = reply.body.decode(errors="replace")
        if reply.status in (401, 403):
            change = self._of_key(reply) + self._unlisted()
        elif 300 <= reply.status < 400:
            change = self._of_redirect(redact(reply.headers.get("location", ""), self._secrets))
        elif "max_completion_tokens" in words:
            change = 'write {"max_completion_tokens": 0} into the file of llmchaos_request'
        elif reply.status == 400 and "temperature" in words:
            change = 'write {"temperature": null} into the file of llmchaos_request'
        elif reply.status in (400, 422) and "stream_options" in words:
            change = 'write {"stream_options": null} into the file of llmchaos_request; costs then lack the prompts'
        elif reply.status == 400 and _WANTS_TLS.search(words):
            change = f"the service expects TLS: {_SET_TLS}"
        elif reply.status in (400, 404) and _UNKNOWN_MODEL.search(words):
            change = self._of_model(self._requests)
        elif reply.status in (404, 405):
            change = self._of_path()
        else:
            change = "change the request with llmchaos_request, or repair the service"
        return f"{self._answered(reply)}: {change}"

    def _of_key(self, reply: Reply) -> str:
        sent = [header for header in self._requests.headers if header.name.lower() != "host"]
        if sent:
            return (
                f"it does not accept {', '.join(header.name for header in sent)} of llmchaos_headers: check the values"
            )
        words = (reply.body.decode(errors="replace") + reply.headers.get("www-authenticate", "")).lower()
        name = next((one for one in ("x-api-key", "api-key") if one in words), "Authorization")
        scheme = "" if name != "Authorization" else "Basic " if "basic" in words else "Bearer "
        return f'set llmchaos_headers = ["{name}: {scheme}$API_KEY"], and the environment variable API_KEY'

    def _of_redirect(self, to: str) -> str:
        there = urlsplit(to)
        if there.scheme == "https" and not self._requests.tls:
            return f"it redirects to {to}: {_SET_TLS}, and llmchaos_api to the port with TLS"
        if there.path and there.path != urlsplit(self._requests.path).path:
            return f"it redirects to {to}: set llmchaos_path if the API is there, or llmchaos_headers if it is a login"
        return f"it redirects to {to or 'no address'}, and clients do not follow: set Host in llmchaos_headers, or llmchaos_api"

    def _of_path(self) -> str:
        """Another path that answers, or advice."""
        for changed, change in self._alternatives():
            try:
                reply = self._send(changed, _PROBE_S)
            except (ConnectionError, NotReady):
                continue
            if "html" in reply.headers.get("content-type", ""):
                continue
            found = f"POST {changed.path} got {reply.status}: set {change}"
            if reply.status == 200:
                return found
            if reply.status in (401, 403):
                return f"{found}; {self._of_key(reply)}"
            if reply.status in (400, 404) and _UNKNOWN_MODEL.search(reply.body.decode(errors="replace")):
                return f"{found}; {self._of_model(changed)}"
        return (
            "no other usual path answers: set llmchaos_path, or Host in llmchaos_headers if the service is reached "
            "by a name"
        )

    def _alternatives(self) -> Iterator[tuple[Requests, str]]:
        ours = self._requests
        for dialect, path in _OTHER_PATHS:
            if path == ours.path:
                continue
            template = ours.template if dialect == ours.dialect else None
            keys = [f'llmchaos_dialect = "{dialect}"'] if dialect != ours.dialect else []
            if path != PATHS[dialect] or ours.path != PATHS[ours.dialect]:
                keys.append(f'llmchaos_path = "{path}"')
            yield replace(ours, dialect=dialect, path=path, template=template), " and ".join(keys)

    def _of_model(self, requests: Requests) -> str:
        """Advice about an unknown model, with the names of those that are known."""
        names = self._models(requests)
        listed = f"; its models are {', '.join(names[:8])}" if names else "; its list of models is empty"
        return redact(f"set llmchaos_model, which is {self._model!r}{'' if names is None else listed}", self._secrets)

    def _unlisted(self) -> str:
        """A remark if the service lists its models to anyone, and not the load's."""
        names = self._models(self._requests)
        if not names or self._model in names:
            return ""
        return redact(f"; llmchaos_model is {self._model!r}, and its models are {', '.join(names[:8])}", self._secrets)

    def _models(self, requests: Requests) -> list[str] | None:
        """The names of the service's models, or None if it does not list them."""
        is_ollama = requests.dialect.startswith("ollama")
        base = re.sub(r"/(chat/)?completions$", "", urlsplit(requests.path).path)
        try:
            reply = self._send(requests, _PROBE_S, get="/api/tags" if is_ollama else f"{base}/models")
            listed = json.loads(reply.body)["models" if is_ollama else "data"]
            return [str(one["name" if is_ollama else "id"]) for one in listed]
        except (ConnectionError, NotReady, ValueError, KeyError, TypeError):
            return None

    def _of_stream(self, reply: Reply) -> str | None:
        form, dialect = FORMATS[self._requests.dialect], self._requests.dialect
        outcome, tokens = form.of_stream(reply.body, None)
        kind = reply.headers.get("content-type", "none").partition(";")[0]
        other = None if tokens else next((one for one in DIALECTS if _is_good(one, reply.body)), None)
        coding = _coding(reply)
        if coding:
            wrong = f"compressed ({coding}), which the clients do not accept: switch compression off for event streams"
        elif reply.broken:
            wrong = f"and the answer broke off: {redact(reply.broken, self._secrets)}"
        elif other is not None:
            wrong = f'which is not the dialect {dialect}: set llmchaos_dialect = "{other}"'
        elif outcome == "ok":
            return None
        elif "html" in kind:
            wrong = f"a web page ({kind}): {self._of_path()}"
        elif kind not in ("text/event-stream", "application/x-ndjson"):
            wrong = f"with the content type {kind} instead of {form.media_type}: the load needs a streamed answer"
        elif outcome == "inband_error":
            wrong = "a stream with an error in it: repair the service, or change the request"
        elif outcome == "truncated":
            end = "`[DONE]`" if form.ends_with_done else "its last event"
            wrong = f"a stream without a good finish reason and {end}: each answer would count as truncated"
        else:
            wrong = f"a stream with events that are not of the dialect {dialect}: set llmchaos_dialect"
        return f"{self._answered(reply)}, {wrong}"

    def _of_connection(self, why: str) -> Problem:
        name = certificate_name(self._url, self._requests.resolve(os.environ).host)
        if "CERTIFICATE_VERIFY_FAILED" in why:
            return Problem(_of_certificate(why, name))
        if self._requests.tls and "SSL" in why:
            plain = f"http://{self._url.partition('://')[2]}"
            if self._speaks(plain):
                return Problem(
                    "the service has no TLS on this port: remove llmchaos_tls, or set the port in llmchaos_api"
                )
            return Problem(
                f"TLS with the name {name!r} failed: {why}: set Host in llmchaos_headers to a name that it serves"
            )
        if not self._requests.tls and "refused" not in why and self._speaks(f"https://{self._url.partition('://')[2]}"):
            return Problem(f"the service expects TLS on this port: {_SET_TLS}")
        if "Timeout" in why:
            return Problem(f"POST {self._requests.path} got no answer in time ({why}): is its model loaded?")
        return Problem(f"POST {self._requests.path} got no answer ({why}): check the port in llmchaos_api", REFUSED_S)

    def _speaks(self, url: str) -> bool:
        """True if a server answers at this address, whose scheme is the other one."""
        try:
            self._send(replace(self._requests, tls=""), _PROBE_S, get="/", url=url)
        except ConnectionError:
            return False
        return True


def _is_good(dialect: Dialect, body: bytes) -> bool:
    outcome, tokens = FORMATS[dialect].of_stream(body, None)
    return outcome == "ok" and tokens > 0


def _of_certificate(why: str, name: str) -> str:
    """The change by OpenSSL's words on a certificate."""
    words = re.sub(r"^.*certificate verify failed: |\s*\(_ssl\.c:\d+\)$", "", why)
    if "mismatch" in words:
        return (
            f'TLS: {words}: set Host in llmchaos_headers to a name of the certificate, or llmchaos_tls to "unverified"'
        )
    if "self-signed" in words or "self signed" in words or "issuer" in words:
        return f"TLS: the CA of the certificate for {name!r} is unknown ({words}): set llmchaos_tls to its CA file"
    return f'TLS: the certificate for {name!r} is refused ({words}): renew it, or set llmchaos_tls to "unverified"'


def _is_text(body: bytes) -> bool:
    """Return True for UTF-8 without a NUL, which may be cut off anywhere."""
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(body)
    except UnicodeDecodeError:
        return False


def _coding(reply: Reply) -> str:
    """Name of an answer's compression, empty without one."""
    coding = reply.headers.get("content-encoding", "").lower()
    return "" if coding == "identity" else coding

"""Requests of a user's stack: headers, paths, TLS, bodies."""

import json
from typing import ClassVar

import pytest
from support.own_stack_keys import make_folder, subject_of

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.subject.headers import Header, headers_of, resolve, secrets_of
from pytest_llmchaos.subject.request_body import Body, fields_of
from pytest_llmchaos.subject.requests import (
    DIALECTS,
    PATHS,
    Requests,
    authority,
    certificate_name,
    check_path,
    head_of,
)

SECRET = "Zx9-planted-secret"


class TestHeaders:
    def test_lines_are_headers(self):
        lines = ["Authorization: Bearer $LLM_KEY", "Host:llm.localhost:8080", "x-team:  a: b "]

        assert headers_of(lines) == (
            Header("Authorization", "Bearer $LLM_KEY"),
            Header("Host", "llm.localhost:8080"),
            Header("x-team", "a: b"),
        )

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (SECRET, "got a line that does not begin with a name"),
            (f": {SECRET}", "got a line that does not begin with a name"),
            (f"X Team: {SECRET}", "got a line that does not begin with a name"),
            ("X-Team:", "got 'X-Team' without a value"),
            (f"X-Team: {SECRET}\n", "X-Team"),
            (f"X-Team: {SECRET}\u00fc", "the value of X-Team must be plain ASCII on one line"),
            (
                f"X-Team: {SECRET} $",
                "X-Team: \\$ must begin a variable such as \\$API_KEY .* write \\$\\$ for a plain \\$",
            ),
            ("Accept-Encoding: gzip", "Accept-Encoding is set by the run itself: drop it"),
            ("x-request-ID: 5", "x-request-ID is set by the run itself"),
            ("Host: http://web", "Host must be a name such as llm.localhost, got 'http://web'"),
        ],
    )
    def test_a_line_that_is_no_header_is_refused_without_its_value(self, line, message):
        if line.endswith("\n"):
            assert headers_of([line])[0].value == SECRET
            return
        with pytest.raises(BadScenario, match=message) as refused:
            headers_of([line])
        assert SECRET not in str(refused.value)

    def test_a_refusal_names_the_key_that_has_the_line(self):
        with pytest.raises(BadScenario, match=r"^llmchaos_prometheus_headers must be lines such as .* 'X' without"):
            headers_of(["X:"], "llmchaos_prometheus_headers")

    def test_one_resolver_serves_requests_and_prometheus(self):
        headers = headers_of(["Host: $NAME", "X-Price:  ${PRICE}$$ "], "key")

        assert resolve(headers, {"NAME": "prom", "PRICE": "7"}, "key") == {"Host": "prom", "X-Price": "7$"}
        with pytest.raises(NotReady, match=r"^key: Host needs .* NAME, which is not set; key: X-Price needs .*PRICE"):
            resolve(headers, {}, "key")
        assert secrets_of(headers, {"NAME": "prom", "PRICE": "7"}) == {"prom", "7", "7$"}

    def test_a_header_that_is_given_twice_is_refused(self):
        with pytest.raises(BadScenario, match="x-team is given twice: give each header once"):
            headers_of(["X-Team: a", "x-team: b"])

    def test_the_value_of_a_header_is_never_printed(self):
        requests = Requests(headers=(Header("X-Team", SECRET),), tls="system", template=None)

        assert SECRET not in f"{requests} {requests!r}"
        assert str(requests) == "POST /v1/chat/completions, dialect chat, headers X-Team, TLS system"

    def test_a_template_is_named(self, tmp_path):
        assert str(Requests(template=tmp_path)).endswith(f"dialect chat, template {tmp_path}")

    def test_a_header_of_the_user_replaces_one_of_the_load(self):
        assert head_of({"content-type": "text/json", "X": "y"}) == {
            "Accept": "text/event-stream, application/json",
            "content-type": "text/json",
            "X": "y",
        }

    def test_a_header_of_one_load_comes_after_the_others_and_replaces_one_of_the_same_name(self):
        requests = Requests(headers=headers_of(["X-Team: a", "X-Class: low"]))

        assert requests.with_headers((("x-class", "high"),)).headers == (
            Header("X-Team", "a"),
            Header("x-class", "high"),
        )
        assert requests.with_headers(()) == requests


class TestVariables:
    REQUESTS: ClassVar = Requests(
        path="/v1?key=${PATH_KEY}&a=$$",
        headers=headers_of(["Authorization: Bearer $LLM_KEY", "Host: $NAME", "Accept: x/y", "X-Team: of literal"]),
    )
    ENVIRON: ClassVar = {"LLM_KEY": SECRET, "PATH_KEY": "p1", "NAME": "llm.localhost"}

    def test_values_come_from_the_environment(self):
        assert self.REQUESTS.resolve(self.ENVIRON) == (
            "/v1?key=p1&a=$",
            "llm.localhost",
            {"Authorization": f"Bearer {SECRET}", "Accept": "x/y", "X-Team": "of literal"},
        )

    def test_values_of_variables_and_of_headers_are_secrets(self):
        assert self.REQUESTS.secrets(self.ENVIRON) == {
            SECRET,
            "p1",
            "llm.localhost",
            f"Bearer {SECRET}",
            "of literal",
            "literal",
        }

    def test_without_its_variable_a_value_is_no_secret_yet(self):
        assert Requests(headers=headers_of(["X-Key: $NOT_SET"])).secrets({}) == {"$NOT_SET"}
        assert Requests(headers=headers_of(["X-Key: $BLANK"])).secrets({"BLANK": "  "}) == set()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"LLM_KEY": None},
                "^llmchaos_headers: Authorization needs the environment variable LLM_KEY, which is not set: set it before",
            ),
            ({"LLM_KEY": ""}, "LLM_KEY, which is empty"),
            ({"PATH_KEY": None}, "^llmchaos_path needs the environment variable PATH_KEY, which is not set"),
            (
                {"LLM_KEY": f"{SECRET}\n"},
                "the value of the environment variable LLM_KEY is not plain ASCII on one line: set it",
            ),
            (
                {"LLM_KEY": None, "NAME": None},
                "LLM_KEY, which is not set; llmchaos_headers: Host needs .* NAME, which is",
            ),
        ],
    )
    def test_a_variable_that_is_missing_is_named(self, changes, message):
        environ = {name: value for name, value in {**self.ENVIRON, **changes}.items() if value is not None}

        with pytest.raises(NotReady, match=message) as refused:
            self.REQUESTS.resolve(environ)
        assert SECRET not in str(refused.value)


class TestPath:
    @pytest.mark.parametrize("path", ["/v1", "/v1?api-version=2024-02-01", "/v1?key=$KEY&x=%20", "/v1/${ID}/chat"])
    def test_a_path_has_a_query(self, path):
        check_path("llmchaos_path", path)

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("v1", "llmchaos_path must be a path such as /v1/chat/completions, .* got 'v1'"),
            ("http://web/v1", "got 'http://web/v1'"),
            ("/a b", "got '/a b'"),
            ("/\u00fc", "llmchaos_path must be a path"),
            ("/v1?key=$", "llmchaos_path: \\$ must begin a variable"),
            (f"/v1?api_key={SECRET}", "the value of api_key may be a secret, .* write api_key=\\$API_KEY"),
        ],
    )
    def test_another_one_is_refused(self, path, message):
        with pytest.raises(BadScenario, match=message) as refused:
            check_path("llmchaos_path", path)
        assert SECRET not in str(refused.value)


class TestNames:
    @pytest.mark.parametrize(
        ("url", "host", "named", "checked"),
        [
            ("http://127.0.0.1:80", "", "127.0.0.1:80", "127.0.0.1"),
            ("http://127.0.0.1:80", "llm.localhost", "llm.localhost", "llm.localhost"),
            ("https://127.0.0.1:8443", "", "localhost:8443", "localhost"),
            ("https://127.0.0.1", "", "localhost", "localhost"),
            ("https://[::1]:8443", "", "localhost:8443", "localhost"),
            ("https://127.0.0.1:8443", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
            ("https://127.0.0.1:8443", "llm.localhost:443", "llm.localhost:443", "llm.localhost"),
            ("https://docker:8443", "", "docker:8443", "docker"),
            ("https://10.0.0.5:8443", "", "10.0.0.5:8443", "10.0.0.5"),
        ],
    )
    def test_host_and_certificate_have_the_name_of_the_user_or_else_localhost(self, url, host, named, checked):
        assert (authority(url, host), certificate_name(url, host)) == (named, checked)

    def test_a_service_with_tls_has_an_address_with_https(self):
        assert Requests(tls="system").address("http://127.0.0.1:1") == "https://127.0.0.1:1"
        assert Requests().address("http://127.0.0.1:1") == "http://127.0.0.1:1"


def body_of(tmp_path, template=None, *, dialect="chat", prompt='how "\u00fc"', count=5):
    path = None
    if template is not None:
        path = tmp_path / "request.json"
        path.write_text(template if isinstance(template, str) else json.dumps(template))
    return json.loads(Body(Requests(dialect=dialect, template=path), "m").of(prompt, count))


class TestBody:
    USER: ClassVar = {"role": "user", "content": 'how "\u00fc"'}

    def test_each_dialect_has_its_own_fields(self, tmp_path):
        options = {"temperature": 0, "num_predict": 5}
        usage = {"stream_options": {"include_usage": True}}

        assert {dialect: body_of(tmp_path, dialect=dialect) for dialect in DIALECTS} == {
            "chat": {"model": "m", "stream": True, **usage, "temperature": 0, "max_tokens": 5, "messages": [self.USER]},
            "completions": {
                "model": "m",
                "stream": True,
                **usage,
                "temperature": 0,
                "max_tokens": 5,
                "prompt": self.USER["content"],
            },
            "ollama": {"model": "m", "stream": True, "options": options, "messages": [self.USER]},
            "ollama-generate": {"model": "m", "stream": True, "options": options, "prompt": self.USER["content"]},
            "tgi": {"inputs": self.USER["content"], "parameters": {"details": True, "max_new_tokens": 5}},
        }
        assert set(PATHS) == set(DIALECTS)
        assert fields_of(Requests(), "m", stream=False).keys() == {
            "model",
            "stream",
            "temperature",
            "max_tokens",
            "messages",
        }

    def test_a_template_adds_fields_and_the_prompt_follows_its_messages(self, tmp_path):
        system = {"role": "system", "content": "Be short."}
        template = {"messages": [system], "tools": [{"type": "function"}], "temperature": 0.7, "max_tokens": 900}

        assert body_of(tmp_path, template) == {
            "model": "m",
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.7,
            "max_tokens": 5,
            "messages": [system, self.USER],
            "tools": [{"type": "function"}],
        }

    def test_the_prompt_replaces_its_place_in_the_template(self, tmp_path):
        messages = [{"role": "user", "content": [{"type": "text", "text": "Q: $PROMPT?"}]}, {"role": "assistant"}]

        found = body_of(tmp_path, {"messages": messages})["messages"]

        assert found[0]["content"][0]["text"] == 'Q: how "\u00fc"?'
        assert found[1:] == messages[1:]
        assert body_of(tmp_path, {"prompt": "$PROMPT!"}, dialect="completions")["prompt"] == 'how "\u00fc"!'

    @pytest.mark.parametrize(
        ("template", "left"),
        [
            (
                {"max_completion_tokens": 0, "max_tokens": 7, "stream_options": None},
                {"max_completion_tokens": 5, "temperature": 0},
            ),
            ({"max_tokens": None}, {"temperature": 0}),
            ({"temperature": None}, {"max_tokens": 5}),
            ({"model": "other"}, {"max_tokens": 5, "temperature": 0}),
        ],
    )
    def test_the_number_of_tokens_has_the_spelling_of_the_template_and_null_leaves_out(self, tmp_path, template, left):
        found = body_of(tmp_path, template)

        usage = {} if template.get("stream_options", 0) is None else {"stream_options": {"include_usage": True}}
        assert {name: found[name] for name in found if name not in ("model", "stream", "messages")} == left | usage

    def test_options_of_the_template_are_kept(self, tmp_path):
        template = {"options": {"num_ctx": 512, "temperature": None, "num_predict": 3}, "keep_alive": -1}

        found = body_of(tmp_path, template, dialect="ollama")

        assert (found["options"], found["keep_alive"]) == ({"num_ctx": 512, "num_predict": 5}, -1)

    def test_a_prompt_that_looks_like_a_part_of_the_body_stays_a_prompt(self, tmp_path):
        odd = '\x02count\x02 "\\u0002prompt\\u0002" $PROMPT'

        assert body_of(tmp_path, prompt=odd)["messages"][0]["content"] == odd

    @pytest.mark.parametrize(
        ("template", "dialect", "message"),
        [
            ("{", "chat", r"request\.json:1:2: not JSON: Expecting property name"),
            ("[]", "chat", r"request\.json must be one JSON object, got list"),
            ("[" * 100_000, "chat", r"request\.json must be one JSON object: "),
            ({"stream": False}, "chat", "stream must be true, because a load measures streams, got False: drop it"),
            ({"messages": {}}, "chat", "messages must be a list of objects, got {}"),
            ({"messages": ["a"]}, "ollama", r"messages must be a list of objects, got \['a'\]"),
            ({"options": [1]}, "ollama", r"options must be an object, got \[1\]"),
            ({"inputs": "Hi"}, "tgi", r"inputs must contain \$PROMPT, where the prompt is put, got 'Hi'"),
        ],
    )
    def test_a_template_that_cannot_become_a_request_is_refused(self, tmp_path, template, dialect, message):
        with pytest.raises(BadScenario, match=message):
            body_of(tmp_path, template, dialect=dialect)


class TestKeys:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "request.json").write_text('{"model": "theirs"}')
        (tmp_path / "ca.pem").write_text("")
        return make_folder(tmp_path)

    def test_values_for_prometheus_are_secrets_too(self, folder):
        keys = {"headers": ("X-Team: $A",), "prometheus": "prom", "prometheus_headers": ("X-Login: Plain $B",)}

        assert subject_of(folder, **keys).secrets({"A": "a1", "B": "b1"}) == {"a1", "Plain b1", "b1"}

    def test_keys_are_requests(self, folder):
        subject = subject_of(
            folder,
            dialect="ollama-generate",
            path="/p?q=$Q",
            headers=("Host: llm.localhost",),
            tls="ca.pem",
            request="request.json",
        )

        assert subject.requests == Requests(
            dialect="ollama-generate",
            path="/p?q=$Q",
            headers=(Header("Host", "llm.localhost"),),
            tls=str(folder / "ca.pem"),
            template=folder / "request.json",
        )
        assert subject.model == "theirs"

    def test_without_them_requests_are_plain_chat_completions(self, folder):
        subject = subject_of(folder)

        assert (subject.requests, subject.model) == (Requests(), "default")
        assert subject_of(folder, dialect="tgi").requests.path == "/generate_stream"
        assert [subject_of(folder, tls=one).requests.tls for one in ("system", "unverified")] == [
            "system",
            "unverified",
        ]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"dialect": "openai"}, "llmchaos_dialect must be one of chat, completions, ollama, .*, got 'openai'"),
            ({"tls": "true"}, 'llmchaos_tls: no file at .*true: give a path .*, "system" or "unverified"'),
            ({"path": "v1"}, "llmchaos_path must be a path"),
            ({"headers": ("a",)}, "llmchaos_headers must be lines such as"),
            ({"request": "no.json"}, r"llmchaos_request: no file at .*no\.json"),
            (
                {"request": "request.json", "model": "mine"},
                "llmchaos_model is 'mine' and the model in .* is 'theirs': give one of them",
            ),
        ],
    )
    def test_a_key_that_is_wrong_is_named(self, folder, changes, message):
        with pytest.raises(BadScenario, match=message):
            subject_of(folder, **changes)

    def test_a_model_that_is_no_name_is_refused(self, folder):
        (folder / "request.json").write_text('{"model": 5}')

        with pytest.raises(BadScenario, match=r"request\.json: model must be a string, got 5"):
            subject_of(folder, request="request.json")

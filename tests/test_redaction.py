"""The redaction: secrets are hidden, and other text stays."""

import os

import pytest

from pytest_llmchaos.evidence import redaction
from pytest_llmchaos.evidence.redaction import hide, redact, redact_bytes, redact_file, redact_inside, secrets_of

SECRET = "Zx9secretvalue"
FORMS = [
    f"Authorization: Bearer {SECRET}",
    f"authorization: Basic {SECRET}",
    f'{{"authorization": "Bearer {SECRET}"}}',
    f"curl -H 'X-Api-Key: {SECRET}' http://127.0.0.1",
    f"vllm serve m --api-key {SECRET} --port 80",
    f"vllm serve m --api-key={SECRET}",
    f"vllm serve m --api-key '{SECRET} with blanks'",
    f"-api_key {SECRET}",
    f"LITELLM_MASTER_KEY={SECRET}",
    f"export OPENAI_API_KEY='{SECRET}'",
    f"AWS_SECRET_ACCESS_KEY: {SECRET}",
    f"HF_TOKEN={SECRET}",
    f"DB_PASSWORD={SECRET}",
    f"POSTGRES_PASSWD: '{SECRET}'",
    f'"password": "{SECRET}"',
    f'{{"apiKey":"{SECRET}"}}',
    f"{{'client_secret': '{SECRET}'}}",
    f"postgresql://app:{SECRET}@db:5432/app",
    f"redis://:{SECRET}@cache",
    f"https://{SECRET}@github.com/a/b",
    f"http://a:{SECRET}@h/ and https://b:{SECRET}@i/",
    f"GET /v1/models?api_key={SECRET}&limit=1",
    f"GET /b?X-Amz-Signature={SECRET}&b=1",
    f"Set-Cookie: {SECRET}; HttpOnly",
    f"password={SECRET},user=a",
    f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
    f"sk-proj-{SECRET}0123456789",
    f"hf_{SECRET}0123456789",
    f"ghp_{SECRET}0123456789",
    f"glpat-{SECRET}0123456789",
    f"AKIA{SECRET.upper()}00",
    f"eyJhbGciOiJIUzI1.{SECRET}.{SECRET}",
]


@pytest.mark.parametrize("text", FORMS)
def test_a_secret_is_hidden_in_every_form(text):
    assert SECRET.lower() not in redact(text).lower()
    assert "***" in redact(text)


@pytest.mark.parametrize("text", FORMS)
def test_hiding_twice_is_hiding_once(text):
    assert redact(redact(text)) == redact(text)


def test_text_next_to_a_secret_stays():
    assert redact(f"GET /m?api_key={SECRET}&limit=1 200") == "GET /m?api_key=***&limit=1 200"
    assert redact(f"serve --api-key {SECRET} --port 80") == "serve --api-key *** --port 80"
    assert redact(f"postgres://app:{SECRET}@db:5432/app?x=1") == "postgres://***@db:5432/app?x=1"
    assert redact(f'{{"token": "{SECRET}", "n": 1}}') == '{"token": ***, "n": 1}'


HARMLESS = [
    "first_token_s=0.3 max_tokens=8 tokens: many",
    "first token: 0.31 s",
    "prompt_tokens=12, completion_tokens=4, total_tokens=16",
    "LAB_FIRST_TOKEN_S=0.05",
    "--max-tokens 512 --tokenizer mistral",
    "the service keeps no token: None",
    "sort_key=name, cache key: abc",
    "ssh://user@host and http://127.0.0.1:8000/readyz",
    "pytest scenarios --chaos-seed=7 -k 'kill or pause'",
    "test_x.py::test_a[kill model-1]",
    "https://example.com/@name/x",
    "api exited (137): OOMKilled=true",
    "bearer of bad news",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_text_that_is_not_secret_stays(text):
    assert redact(text) == text


def test_the_values_of_this_process_secret_variables_are_hidden_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("SHOP_PAT", "plain-looking-words")
    monkeypatch.setenv("SHOP_NAME", "another-plain-value")

    assert redact("sent plain-looking-words on (another-plain-value)") == "sent *** on (another-plain-value)"


def test_a_value_is_hidden_as_a_word_and_not_inside_another():
    assert redact("password1 and password1x", ["password1"]) == "*** and password1x"


def test_short_values_and_harmless_names_are_not_secret():
    variables = {"API_KEY": "12345678", "MY_TOKEN": "1234567", "SSH_AUTH_SOCK": "/tmp/agent.1", "MONKEYS": "many-many"}

    assert secrets_of(variables) == {"12345678"}


def test_the_folders_that_a_shell_names_are_no_secrets():
    assert secrets_of({"PWD": "/home/me/project", "OLDPWD": "/home/me/other", "DB_PWD": "correcthorse"}) == {
        "correcthorse"
    }


def test_a_log_of_any_encoding_keeps_its_bytes():
    assert redact_bytes(b"\xff\xfe token=Zx9secretvalue \xe4") == b"\xff\xfe token=*** \xe4"


def test_texts_inside_a_value_are_hidden():
    assert redact_inside({"a": [f"token={SECRET}", 1, None], "b": {"c": (f"hf_{SECRET}xxxxx",)}}) == {
        "a": ["token=***", 1, None],
        "b": {"c": ["***"]},
    }


def test_the_longest_of_nested_values_is_hidden_whole(monkeypatch):
    monkeypatch.setenv("SHOP_PAT", "plain-words")
    values = ["plain-words-of-all", "plain-words-of", "plain-words"]

    for more in (values, values[::-1]):
        assert redact("plain-words plain-words-of plain-words-of-all", more) == "*** *** ***"


@pytest.mark.parametrize("text", [f"token={SECRET} and more", "password=!below-an-asterisk"])
def test_a_file_loses_its_secrets(tmp_path, text):
    (tmp_path / "log").write_text(text)

    redact_file(tmp_path / "log")

    assert (tmp_path / "log").read_text() == redact(text)
    assert redact(text) != text


def test_a_file_without_secrets_is_not_written_or_created(tmp_path):
    (tmp_path / "log").write_bytes(b"nothing \xff secret\n")
    os.utime(tmp_path / "log", (1, 1))

    redact_file(tmp_path / "log")
    redact_file(tmp_path / "none")

    assert [(path.name, path.stat().st_mtime) for path in tmp_path.iterdir()] == [("log", 1)]


def test_a_hidden_value_is_found_in_each_form_in_which_servers_write_it(monkeypatch):
    monkeypatch.setattr(redaction, "_hidden", set())
    text = 'Zx9/plan"ted+k=y xZx9/plan"ted+k=yx {"a": "Zx9/plan\\"ted+k=y"} ?a=Zx9%2Fplan%22ted%2Bk%3Dy short'

    hide(['Zx9/plan"ted+k=y', "short"])

    assert redact(text) == '*** x***x {"a": "***"} ?a=*** short'

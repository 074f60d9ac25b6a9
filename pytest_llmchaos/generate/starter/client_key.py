"""The API key of the clients, guessed from variables, options and settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_llmchaos.generate.starter.compose_file import Service
from pytest_llmchaos.generate.starter.guess import Guess

_DEFAULT_VARIABLE = "API_KEY"
_OPTION = re.compile(
    r"""(?<!\S)--(?:api[-_](?:keys?|token)(?:[-_]file)?|auth[-_]token|master[-_]key)[= ]+["']?(?:\$+\{?(\w+))?"""
)
_IN_SETTINGS = re.compile(r"(?m)^\s*master_key:\s*[\"']?(?:os\.environ/(\w+)|[^\s#\"'])")
_VARIABLE = re.compile(
    r"^(?:\w+_)?(?:(?:API|MASTER|AUTH|ACCESS|BEARER|CLIENT)_?(?:KEYS?|TOKEN)|TOKEN)(?:_FILE)?$|^KEYS?(?:_FILE)?$"
)
# A key of its own service, such as GATEWAY_KEY of `gateway`, or of another one.
_OF_SOMEBODY = re.compile(r"^\w+_KEYS?(?:_FILE)?$")
# Keys for something else: another service's, or no clients' key at all.
_FOREIGN = re.compile(
    r"(?:^|_)(?:"
    r"ADMIN|ANTHROPIC|AWS|AZURE|BOS|BOT|BRAVE|CLAUDE|CLOUDFLARE|COHERE|COMET|COOKIE|CSRF|"
    r"DATADOG|DD|DEEPSEEK|DISCORD|ELASTIC|ENCRYPTION|EOS|FIREWORKS|FIRECRAWL|GCP|GEMINI|GITHUB|"
    r"GITLAB|GOOGLE|GRAFANA|GROQ|HF|HUB|HUGGING|HUGGINGFACE|HUGGINGFACEHUB|INFLUXDB|JWT|"
    r"LANGCHAIN|LANGFUSE|LANGSMITH|MILVUS|MISTRAL|NGC|NGROK|NVIDIA|OPENROUTER|PAD|PERPLEXITY|"
    r"PINECONE|PRIVATE|PUBLIC|QDRANT|REDIS|REFRESH|REPLICATE|SECRET|SENTRY|SERPER|SESSION|"
    r"SIGNING|SLACK|SSH|SSL|STOP|STRIPE|TAVILY|TELEGRAM|TLS|TOGETHER|TUNNEL|VAULT|WANDB|"
    r"WEAVIATE|WEBHOOK|XAI"
    r")(?:_|$)"
)
# Keys that a program often sends to the next one, rather than checks.
_PASSED_ON = re.compile(
    r"(?:^|_)(?:BACKEND|INFERENCE|LITELLM|LLM|LOCALAI|MODEL|OLLAMA|OPENAI|SGLANG|TGI|UPSTREAM|VLLM)_"
)


@dataclass(frozen=True, kw_only=True)
class ClientKey:
    """The key that clients send.

    Attributes:
        variable: the environment variable that holds it when pytest runs.
        place: where the stack has its value.
        doubt: why clients may need no key, empty if they seem to.
    """

    variable: str
    place: str
    doubt: str = ""

    @property
    def guess(self) -> Guess:
        """The ini key with the header."""
        if self.doubt:
            rest = f"but {self.doubt}. If clients need it, put the line in force"
        else:
            rest = "so clients seem to need it. If yours do not, remove the line"
        return Guess(
            key="headers",
            value=(f"Authorization: Bearer ${self.variable}",),
            reason=f"a key is in {self.place}, {rest}. Its value belongs in the environment of pytest, never in this file",
            sure=not self.doubt,
        )


def client_key(near: Sequence[Service]) -> ClientKey | None:
    """Return the key that clients of the first service must send, or None.

    Args:
        near: the services that a request reaches, the first one first.
    """
    for one in near:
        found = list(_of_service(one))
        if found:
            return next((key for key in found if not key.doubt), found[0])
        if one.server.part != "proxy":
            return None  # a key behind it is sent by this service, not by clients
    return None


def _of_service(one: Service) -> Iterator[ClientKey]:
    known = one.server.key_variables
    for text in one.texts:
        for match in _IN_SETTINGS.finditer(text):
            yield ClientKey(variable=match[1] or (*known, _DEFAULT_VARIABLE)[0], place=f"the settings of {one.name}")
    for name in known:
        if name in one.written.environment:
            yield _in_variable(one, name)
    if option := _OPTION.search(one.command):
        # In the file the value may be a variable that Compose fills in.
        in_file = _OPTION.search(one.command_in_file)
        name = option[1] or (in_file[1] if in_file else None) or (*known, _DEFAULT_VARIABLE)[0]
        yield ClientKey(variable=name, place=f"the command of {one.name}")
    for name in sorted(one.written.environment, key=lambda name: "API" not in name):
        if _VARIABLE.search(name) and not _FOREIGN.search(name):
            yield _in_variable(one, name)
    for name in sorted(one.written.environment):
        if _OF_SOMEBODY.search(name) and not _VARIABLE.search(name) and not _FOREIGN.search(name):
            yield _in_variable(one, name)
    for secret in one.written.secrets:
        name = re.sub(r"\W", "_", secret.source.upper())
        if _VARIABLE.search(name) and not (_FOREIGN.search(name) or _PASSED_ON.search(name)):
            yield ClientKey(variable=name.removesuffix("_FILE"), place=f"the secret {secret.source} of {one.name}")


def _in_variable(one: Service, name: str) -> ClientKey:
    doubt = ""
    if not one.written.environment[name]:
        doubt = "it is empty here"
    elif name not in one.server.key_variables and _PASSED_ON.search(name):
        doubt = "programs often send such a key to the next one, rather than check it"
    elif not _VARIABLE.search(name) and not _is_own(one, name) and name not in one.server.key_variables:
        doubt = "its name leaves open for whom it is"
    return ClientKey(variable=name.removesuffix("_FILE"), place=f"the variable {name} of {one.name}", doubt=doubt)


def _is_own(one: Service, name: str) -> bool:
    """True if a variable begins with a word of its service's name."""
    prefix = name.partition("_")[0].lower()
    return prefix in re.split(r"[^a-z0-9]+", one.name.lower())

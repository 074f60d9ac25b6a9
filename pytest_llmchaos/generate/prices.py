"""Prices of providers: their file, and rules of what answers cost."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.model import CLIENT_REPLICA_GOOD

if TYPE_CHECKING:
    from collections.abc import Sequence

COST_PER_S = "llmchaos:provider_cost_per_second"
COST_PER_1000 = "llmchaos:cost_per_1000_good_answers"
_BY = "gen_ai_provider_name"
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_CURRENCY = re.compile("[A-Z]{3}")
_MOST = 1e9
_TOKENS = 1e6
_HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Price:
    """Prices of one provider, in the file's currency.

    Attributes:
        input_per_million: for a million tokens of prompts.
        output_per_million: for a million tokens of answers.
        replica_hour: for an hour of one replica, busy or idle.
    """

    input_per_million: float = 0.0
    output_per_million: float = 0.0
    replica_hour: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Prices:
    """A file of prices."""

    currency: str
    providers: dict[str, Price]


_KEYS = tuple(one.name for one in fields(Price))


def parse_prices(text: str, name: str) -> Prices:
    """Return the prices of a TOML file.

    Args:
        text: the file's content.
        name: the file's name, for messages.

    Raises:
        BadScenario: The file is not TOML, or a value is missing, unknown or wrong.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadScenario(f"{name} must be TOML: {error}") from None
    unknown = sorted(table.keys() - {"currency", "providers"})
    if unknown:
        raise BadScenario(f"{name} has the unknown key {unknown[0]!r}: use currency and providers")
    currency, given = table.get("currency"), table.get("providers")
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise BadScenario(f'{name}: currency must be three capital letters, such as "USD", got {currency!r:.80}')
    if not isinstance(given, dict) or not given:
        raise BadScenario(f"{name} must have a table for each provider, such as [providers.vllm], got {given!r:.80}")
    return Prices(currency=currency, providers={one: _price(given[one], one, name) for one in given})


def _price(given: object, provider: str, name: str) -> Price:
    where = f"{name}: providers.{provider}"
    if not _PROVIDER.fullmatch(provider):
        raise BadScenario(f"{where}: the name must be one of LAB_PROVIDERS: lower-case letters, digits, . _ and -")
    if not isinstance(given, dict) or not given:
        raise BadScenario(f"{where} must be a table with one of {', '.join(_KEYS)}, got {given!r:.80}")
    for key, value in given.items():
        if key not in _KEYS:
            raise BadScenario(f"{where} has the unknown key {key!r}; the keys are {', '.join(_KEYS)}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not (math.isfinite(value) and 0 <= value <= _MOST):
            raise BadScenario(f"{where}.{key} must be a number from 0 to {_MOST:g}, got {value!r:.80}")
    return Price(**given)


def price_rules(prices: Prices, source: str) -> str:
    """Return the text of the rule file.

    Args:
        prices: the prices.
        source: name of their file, for the header.
    """
    head = f"# Generated from {source} by `llmchaos generate`. Change that file and generate again.\n"
    lines = [line for name, price in prices.providers.items() for line in _constants(name, price, prices.currency)]
    return head + "\n".join(["groups:", "  - name: llmchaos-prices", "    rules:", *lines, *_costs()]) + "\n"


def _constants(provider: str, price: Price, currency: str) -> list[str]:
    return [
        line
        for name, value in (
            ("input_token", price.input_per_million / _TOKENS),
            ("output_token", price.output_per_million / _TOKENS),
            ("replica_second", price.replica_hour / _HOUR_S),
        )
        for line in (
            f"      - record: llmchaos:price_{name}",
            f"        expr: vector({value:.12g})",
            f'        labels: {{{_BY}: "{provider}", currency: {currency}}}',
        )
    ]


def _costs() -> Sequence[str]:
    """Rules of all providers with a price, with the currency of the price.

    A prompt without a count costs the mean of those with one. If none has a count, and
    prompts have a price, the provider has no cost.
    """
    prompts = f"sum by ({_BY}) (rate(llmlab_provider_prompts_total%s[1m]))"
    answered, counted = prompts % "", prompts % '{counted="usage"}'
    tokens = f'sum by ({_BY}) (rate(llmlab_provider_tokens_total{{gen_ai_token_type="%s"}}[1m]))'
    joined = f"* on ({_BY}) group_right () llmchaos:price_"
    good = f"({COST_PER_S} / on ({_BY}) group_left () (%s > 0)) * 1000"
    provider = f"group_left ({_BY}) max by (replica, {_BY}) (llmlab_provider_info)"
    return [
        f"      - record: {COST_PER_S}",
        "        expr: |",
        f"          (({tokens % 'input'} * {answered} / ({counted} > 0)",
        f"            or {answered} == 0) {joined}input_token or llmchaos:price_input_token == 0)",
        f"            + {tokens % 'output'} {joined}output_token",
        f"            + count by ({_BY}) (llmlab_provider_info) {joined}replica_second",
        *(
            line
            for counted, rate in (
                ("clients", f"sum by ({_BY}) (rate({CLIENT_REPLICA_GOOD}_total[1m]) * on (replica) {provider})"),
                ("gateway", f'sum by ({_BY}) (rate(llmlab_provider_requests_total{{outcome="ok"}}[1m]))'),
            )
            for line in (
                f"      - record: {COST_PER_1000}",
                "        expr: |",
                f"          {good % rate}",
                f"        labels: {{counted: {counted}}}",
            )
        ),
    ]

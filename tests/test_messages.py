"""Messages of errors that users meet: the value, the expectation and the way out."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pytest_llmchaos"
# What a wrong input, a machine that is not ready or a missing ability raises.
USERS = ("BadScenario", "NotReady", "Unsupported", "UsageError")
EXPECTS = re.compile(
    r"\b(must|expected|needs?|allows?|at least|at most|lies between|wanted|takes|smaller than|instead of|limit"
    r"|different from|not an? |claimed by|has \w+ twice|names? a fault twice)\b"
)
VERBS = (
    "add|call|check|choose|clear|claim|compare|copy|create|cut|declare|drop|fix|free|generate|give|install|label|lower|"
    "list|look|move|name|pass|pin|pip|publish|pull|put|raise|read|remove|rename|repair|report|restart|restore|run|see|"
    "select|set|shorten|sign|start|stop|try|unset|upgrade|uninstall|use|wait|write"
)
DOES = re.compile(rf"(?:^|[:;,.(]\s+|\bor |\band |, so )`?(?:{VERBS})\b")
# There is no value to show where something is absent.
ABSENT = re.compile(
    r"\b(empty|missing|lacks|has no effect|not on PATH|needs|add it|only|in order of|call \w+\(\) first|not performed)\b"
)
# Each of their parts names a way out.
PARTS = ("project {}: {}; nothing was touched",)
# Messages whose way out lies in what they quote: another program's own words.
QUOTES = re.compile(
    r"(ended with|refused|did not start|could not|failed|does not answer|did not answer|kernel|log ends)"
)


def raised():
    """Place and text of each message, with {} for each value."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                name = getattr(node.exc.func, "id", getattr(node.exc.func, "attr", ""))
                text = text_of(node.exc.args[0])
                if name in USERS and text is not None:
                    yield f"{file.relative_to(PACKAGE)}:{node.lineno}", text


def text_of(node):
    """The literal text, {} for each value, None if it is computed elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp):
        return f"{text_of(node.left) or '{}'}{text_of(node.right) or '{}'}"
    return None


MESSAGES = dict(raised())


def problems(text):
    """List what a message lacks."""
    if "{}" not in text and not ABSENT.search(text):
        yield "the value that was seen"
    if not (EXPECTS.search(text) or DOES.search(text) or QUOTES.search(text) or text.endswith("{}") or text in PARTS):
        yield "what was expected, or what to do"


def test_every_message_names_the_value_and_the_expectation_or_the_way_out():
    wrong = {place: [*problems(text), text] for place, text in MESSAGES.items() if list(problems(text))}

    assert wrong == {}
    assert len(MESSAGES) > 200


@pytest.mark.parametrize(
    ("text", "lacking"),
    {
        "no value": ("the rate is wrong: raise rate_rps", ["the value that was seen"]),
        "no expectation": ("{} is wrong", ["what was expected, or what to do"]),
        "neither": ("that went wrong", ["the value that was seen", "what was expected, or what to do"]),
        "both": ("rate_rps must be above 0, got {}", []),
    }.values(),
)
def test_a_message_without_a_value_or_an_expectation_is_found(text, lacking):
    assert list(problems(text)) == lacking

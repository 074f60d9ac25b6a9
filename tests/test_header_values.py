"""Headers with values from environment variables."""

import pytest

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host.header_values import header_values


def test_variables_become_their_values(monkeypatch):
    monkeypatch.setenv("TOKEN", "s3:cret")

    assert header_values(["Authorization: Bearer $TOKEN", "X-Price:  ${TOKEN}$$ "], "key") == {
        "Authorization": "Bearer s3:cret",
        "X-Price": "s3:cret$",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("X: $GONE", "^key needs the environment variable GONE for X: set it$"),
        ("X: secret $ more", r"^key must name variables as \$NAME, and \$\$ for a dollar sign: check X$"),
        ("X: $EMPTY", "^key must give X a value of printable ASCII"),
        ("X: $LINES", "^key must give X a value of printable ASCII"),
    ],
)
def test_a_value_that_cannot_be_made_is_an_error_without_values(monkeypatch, line, message):
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("LINES", "secret\r\nX-Injected: 1")

    with pytest.raises(NotReady, match=message) as refused:
        header_values([line], "key")

    assert "secret" not in str(refused.value)

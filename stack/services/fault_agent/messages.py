"""Heads of requests and answers, as faults see them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestHead:
    """First line and headers of one request. Header names are in lower case."""

    method: str
    path: str  # with its query
    version: str  # "1.1"
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str:
        """The first value of a header, "" without it."""
        return next((value for key, value in self.headers if key == name), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerHead:
    """Status and headers of one answer. Header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    request: RequestHead

    def header(self, name: str) -> str:
        """The first value of a header, "" without it."""
        return next((value for key, value in self.headers if key == name), "")

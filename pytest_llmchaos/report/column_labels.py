"""Names of columns in the cells, for screens too narrow for a table."""

from __future__ import annotations

import itertools
import re

_TABLE = re.compile(r"<table.*?</table>", re.DOTALL)
_HEAD = re.compile(r'<th scope="col"[^>]*>(.*?)</th>', re.DOTALL)
_ROW = re.compile(r"<tr.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<t([dh])\b[^>]*>")
_TAG = re.compile(r"<[^>]*>")


def label(html: str) -> str:
    """Return a page with the attribute `data-h` in the cells of each table with a head.

    Texts of the page must be escaped. Its scripts stay as they are.
    """
    body, script, rest = html.partition("<script")
    return _TABLE.sub(lambda found: _label_table(found[0]), body) + script + rest


def _label_table(table: str) -> str:
    head, end, body = table.partition("</thead>")
    names = [_TAG.sub("", name) for name in _HEAD.findall(head)]
    return head + end + _ROW.sub(lambda row: _label_row(row[0], names), body)


def _label_row(row: str, names: list[str]) -> str:
    left = itertools.chain(names, itertools.repeat(""))

    def label_cell(found: re.Match[str]) -> str:
        name = next(left)
        bare = found[1] == "h" or "colspan" in found[0] or not name
        return found[0] if bare else f'{found[0][:-1]} data-h="{name}">'

    return _CELL.sub(label_cell, row)

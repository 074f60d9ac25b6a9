"""Comparison of two sources by what they execute."""

from __future__ import annotations

import ast


class _Run(ast.NodeTransformer):
    """Removes what never runs: annotations, bare signatures, type-checking imports."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if ast.unparse(node.test).removeprefix("not ") == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(value=None)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        if ast.unparse(node.body[-1]) == "...":
            return None
        node.returns = None
        return self.generic_visit(node)


def runs_the_same(code: str, mutated: str) -> bool:
    """True if two sources execute the same code."""
    return ast.dump(_Run().visit(ast.parse(code))) == ast.dump(_Run().visit(ast.parse(mutated)))

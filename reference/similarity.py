"""How much program text two Python files share, whatever their identifiers are called.

A file becomes a sequence of tokens: keywords and operators as they are, every name `ID`, every
number `NUM`, every string `STR`. Imports, comments, docstrings and annotations are dropped, and
a literal that holds only constants is one token, because a table of widths is a fact and not an
expression. So renaming, reformatting, annotating or commenting a copy does not hide it.
"""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from dataclasses import dataclass
from token import EXACT_TOKEN_TYPES

NGRAM = 12  # about one statement: at 8, unrelated networks share a third; at 20, edits hide copies

KINDS = ("ID", "NUM", "STR", "DATA")


@dataclass(frozen=True)
class Tokens:
    """A normalized file.

    Attributes:
        codes: one byte for each token.
        owners: for each token, the function or class that it belongs to.
    """

    codes: bytes
    owners: tuple[str, ...]


def tokens_of(source: str) -> Tokens:
    """Normalize a Python source text.

    >>> tokens_of("a = b + 1  # why").codes == tokens_of("x = (y + 2)").codes
    True
    """
    tree = ast.parse(source)
    _Normalizer().visit(tree)
    text = ast.unparse(ast.fix_missing_locations(tree))
    owners = _owners(text)
    codes, places = bytearray(), []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = _kind(token)
        if kind is not None:
            codes.append(_CODES[kind])
            places.append(owners.get(token.start[0], "module"))
    return Tokens(codes=bytes(codes), owners=tuple(places))


def ngrams(codes: bytes, length: int = NGRAM) -> frozenset[bytes]:
    """Return the distinct runs of `length` tokens.

    >>> sorted(ngrams(b"abcab", 2))
    [b'ab', b'bc', b'ca']
    """
    return frozenset(codes[i : i + length] for i in range(len(codes) - length + 1))


def longest_run(first: bytes, second: bytes) -> tuple[int, int]:
    """Return the length of the longest common run of tokens and where it starts in the first.

    >>> longest_run(b"xxabcdyy", b"zabcdz")
    (4, 2)
    """
    shortest, longest = 0, min(len(first), len(second))
    while shortest < longest:  # a common run of n tokens contains common runs of every length < n
        middle = (shortest + longest + 1) // 2
        if ngrams(first, middle) & ngrams(second, middle):
            shortest = middle
        else:
            longest = middle - 1
    common = ngrams(second, shortest)
    starts = (i for i in range(len(first)) if first[i : i + shortest] in common)
    return shortest, next(starts, 0)


def share(first: frozenset[bytes], second: frozenset[bytes]) -> float:
    """Return the common n-grams as a share of the smaller side's.

    >>> share(frozenset({b"a", b"b"}), frozenset({b"b", b"c", b"d"}))
    0.5
    """
    smaller = min(len(first), len(second))
    return len(first & second) / smaller if smaller else 0.0


class _Normalizer(ast.NodeTransformer):
    """Drops what is not program text and joins literal data."""

    def visit(self, node: ast.AST) -> ast.AST | None:
        if isinstance(node, (ast.Tuple, ast.List, ast.Set, ast.Dict)) and _is_data(node):
            return ast.Name("DATA", ast.Load())
        return super().visit(node)

    def visit_Import(self, node: ast.Import) -> ast.AST:
        return ast.Pass()  # which is no token: it keeps the block around it from being empty

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        return ast.Pass()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return ast.Pass()
        return self.visit(ast.Assign([node.target], node.value))

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(node.arg)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")  # Python 3.12 tokenizes what is inside, 3.11 does not

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def _without_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        node.body = [line for line in node.body if not _is_bare_constant(line)]
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node


def _is_bare_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_data(node: ast.AST | None) -> bool:
    """Whether a literal holds constants alone, at any depth."""
    if isinstance(node, ast.UnaryOp):
        return _is_data(node.operand)
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return all(map(_is_data, node.elts))
    if isinstance(node, ast.Dict):
        return all(map(_is_data, [*node.keys, *node.values]))
    return isinstance(node, ast.Constant)


def _owners(text: str) -> dict[int, str]:
    """For each line, the name of the innermost function or class around it."""
    owners: dict[int, str] = {}
    for node in ast.walk(ast.parse(text)):  # outer nodes come before inner ones
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            owners |= dict.fromkeys(range(node.lineno, (node.end_lineno or 0) + 1), node.name)
    return owners


def _kind(token: tokenize.TokenInfo) -> str | None:
    if token.string == "pass":
        return None
    if token.type == tokenize.NAME:
        named = keyword.iskeyword(token.string) or token.string == "DATA"
        return token.string if named else "ID"
    if token.type == tokenize.OP:
        return token.string
    return {tokenize.NUMBER: "NUM", tokenize.STRING: "STR"}.get(token.type)


_CODES = {
    kind: code for code, kind in enumerate([*KINDS, *keyword.kwlist, *sorted(EXACT_TOKEN_TYPES)])
}

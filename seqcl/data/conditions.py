"""A condition on rows, such as "event == 'transaction' and price > 5": parsed by Python's grammar, never run as code."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from seqcl.data.evidence import ABSENT
from seqcl.errors import UserError, unknown

COMPARISONS = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}

GRAMMAR = "write such as event == 'buy', rating >= 4, kind in ('a', 'b'), with and, or, not; `my column` in backticks"


@dataclass(frozen=True)
class Condition:
    """A condition on the columns of a log.

    Args:
        text: what the user wrote.
        tree: its parsed form.
        names: the columns that it looks at, by the name that the tree has for them.
    """

    text: str
    tree: ast.expr
    names: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Parse a condition.

        Raises:
            UserError: it is none.
        """
        quoted: dict[str, str] = {}

        def stand_in(found: re.Match[str]) -> str:
            if found[1] is None:  # text in quotes
                return found[0]
            quoted[f"column_{len(quoted)}_"] = found[1]
            return f" column_{len(quoted) - 1}_ "

        try:
            tree = ast.parse(re.sub(r"'[^']*'|\"[^\"]*\"|`([^`]+)`", stand_in, text).strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise UserError(f"--data.where {text[:80]!r}: not a condition; {GRAMMAR}") from None
        condition = cls(text, tree, {})
        condition.check(tree)
        found = (node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        condition.names.update({name: quoted.get(name, name) for name in found})
        if not condition.names:
            raise UserError(f"--data.where {text[:80]!r}: it looks at no column; {GRAMMAR}")
        return condition

    def check(self, node: ast.expr) -> None:
        """Refuse what is no condition.

        Raises:
            UserError: names the part.
        """
        if isinstance(node, ast.BoolOp):
            for value in node.values:
                self.check(value)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self.check(node.operand)
        elif isinstance(node, ast.Compare):
            left = node.left
            for operator, right in zip(node.ops, node.comparators, strict=True):
                listed = isinstance(operator, ast.In | ast.NotIn)
                choices = isinstance(right, ast.Tuple | ast.List) and right.elts
                if listed and not (isinstance(left, ast.Name) and choices):
                    self.refuse(node)
                if not listed and type(operator) not in (*COMPARISONS, ast.Is, ast.IsNot):
                    self.refuse(node)
                for side in (left, *(right.elts if listed else [right])):  # type: ignore[attr-defined]
                    if not isinstance(side, ast.Name) and constant(side) is None and not is_none(side):
                        self.refuse(side)
                    if is_none(side) and not isinstance(operator, ast.Eq | ast.NotEq | ast.Is | ast.IsNot):
                        self.refuse(node)
                left = right
        else:
            self.refuse(node)

    def refuse(self, node: ast.expr) -> NoReturn:
        """Raise the error for a part that no condition has."""
        raise UserError(f"--data.where {self.text[:80]!r}: {ast.unparse(node)[:40]!r} cannot stand there; {GRAMMAR}")

    def holds(self, columns: Mapping[str, pa.Array]) -> pa.Array:
        """(T,) bool, true where the condition holds; a missing value fulfils no comparison but with itself, as in `item != ''`.

        Args:
            columns: the values of each column.

        Raises:
            UserError: a column is compared with what it is not.
        """
        return self.value(self.tree, columns)

    def value(self, node: ast.expr, columns: Mapping[str, pa.Array]) -> pa.Array:
        """The truth of one part of the tree."""
        if isinstance(node, ast.BoolOp):
            join = pc.and_ if isinstance(node.op, ast.And) else pc.or_
            found = self.value(node.values[0], columns)
            for other in node.values[1:]:
                found = join(found, self.value(other, columns))
            return found
        if isinstance(node, ast.UnaryOp):
            return pc.invert(self.value(node.operand, columns))
        assert isinstance(node, ast.Compare)
        found, left = None, node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            one = self.compare(left, operator, right, columns)
            found = one if found is None else pc.and_(found, one)
            left = right
        assert found is not None
        return found

    def compare(
        self, left: ast.expr, operator: ast.cmpop, right: ast.expr, columns: Mapping[str, pa.Array]
    ) -> pa.Array:
        """One comparison of a column with a constant or another column."""
        if isinstance(operator, ast.In | ast.NotIn):
            assert isinstance(left, ast.Name) and isinstance(right, ast.Tuple | ast.List)
            inside = isinstance(operator, ast.In)
            found = pa.scalar(not inside)
            for choice in right.elts:
                one = self.compare(left, ast.Eq() if inside else ast.NotEq(), choice, columns)
                found = pc.or_(found, one) if inside else pc.and_(found, one)
            return found
        if is_none(right) or is_none(left):
            if is_none(right) and is_none(left):
                self.refuse(right)
            found = absent(self.side(left if is_none(right) else right, columns))
            return found if isinstance(operator, ast.Eq | ast.Is) else pc.invert(found)
        if isinstance(operator, ast.Is | ast.IsNot):
            self.refuse(right)
        try:
            one, other = self.side(left, columns), self.side(right, columns)
        except (pa.ArrowException, OverflowError, ValueError):
            self.refuse(right)
        try:
            one, other = alike(one, other)
            if not any(isinstance(side, pa.Scalar) and side.as_py() in ABSENT for side in (one, other)):
                one, other = (side if isinstance(side, pa.Scalar) else present(side) for side in (one, other))
            return pc.fill_null(COMPARISONS[type(operator)](one, other), False)
        except (pa.ArrowException, TypeError, ValueError):
            raise UserError(
                f"--data.where {self.text[:80]!r}: {ast.unparse(left)} and {ast.unparse(right)} cannot be compared: one is {kind_of(one)}, the other {kind_of(other)}"
            ) from None

    def side(self, node: ast.expr, columns: Mapping[str, pa.Array]) -> Any:
        """A column, or a constant."""
        if isinstance(node, ast.Name):
            name = self.names[node.id]
            if name not in columns:
                raise UserError(f"--data.where: {unknown('column', name, columns)}")
            column = columns[name]
            return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        return pa.scalar(constant(node))


def is_none(node: ast.expr) -> bool:
    """True for None, with which missing values are found."""
    return isinstance(node, ast.Constant) and node.value is None


def absent(column: Any) -> Any:
    """(T,) bool, true where a column is null, or text that stands for a missing value."""
    found = pc.is_null(column, nan_is_null=True)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        found = pc.or_(found, pc.fill_null(pc.is_in(column, pa.array(ABSENT, column.type)), True))
    return found


def present(column: Any) -> Any:
    """The column, with null for text that stands for a missing value."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    return pc.if_else(absent(column), pa.scalar(None, column.type), column)


def constant(node: ast.expr) -> Any:
    """The value of a constant: text, a number, true or false; None for anything else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        return -value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
        return node.value
    return None


def alike(one: Any, other: Any) -> tuple[Any, Any]:
    """Both sides in one type: text that is compared with numbers is read as numbers, with dates as dates."""
    texts = [pa.types.is_string(side.type) or pa.types.is_large_string(side.type) for side in (one, other)]
    if texts[0] == texts[1]:
        return one, other
    if texts[1]:
        return tuple(reversed(alike(other, one)))
    kind = other.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return one.cast(pa.timestamp("us")), other.cast(pa.timestamp("us"))
    if isinstance(one, pa.Scalar) and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise TypeError
    one = one if isinstance(one, pa.Scalar) else present(one)
    return one.cast(pa.float64()), other.cast(pa.float64())


def kind_of(side: Any) -> str:
    """The kind of a side of a comparison, in words."""
    kind = side.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "a number"
    return "a date" if pa.types.is_temporal(kind) else "something else"

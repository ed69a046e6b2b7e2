"""Constraints between hyperparameters: ``minibatch_size <= batch_size``, written as in Python and evaluated safely.

A constraint is a comparison, or several joined by ``and``, ``or`` and ``not``; its sides are sums, differences,
products, quotients, remainders and powers of hyperparameters and constants. Functions cannot be called. A
hyperparameter is named by its dotted path or any unique ending of it.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from metta.common.errors import nearest

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_JOINTS: dict[type[ast.boolop], Callable[[Any, Any], Any]] = {ast.And: operator.and_, ast.Or: operator.or_}

_LONGEST = 500
"""Maximum length in characters: a longer one could be nested too deeply for the parser."""


class ConstraintError(ValueError):
    """A constraint that cannot be parsed; the message says which and why."""


@dataclass(frozen=True)
class Constraint:
    """A condition that hyperparameters must meet.

    Attributes:
        text: as it was written.
        paths: dotted paths of the hyperparameters in it.

    Example:
        >>> Constraint.parse("minibatch_size <= batch_size / 2", ["trainer.batch_size", "trainer.minibatch_size"]).paths
        ('trainer.minibatch_size', 'trainer.batch_size')
    """

    text: str
    paths: tuple[str, ...]
    _body: ast.expr
    _path_of: Mapping[str, str]

    @classmethod
    def parse(cls, text: str, paths: Collection[str]) -> Constraint:
        """Parse a constraint between the hyperparameters at `paths`.

        Raises:
            ConstraintError: it is not a comparison, contains an expression that is not allowed, or names a
                hyperparameter that is not searched. The message gives the nearest names.
        """
        if len(text) > _LONGEST:
            raise ConstraintError(f"a constraint has at most {_LONGEST} characters, not {len(text)}")
        try:
            body = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else str(error)
            raise ConstraintError(f"constraint {text!r} cannot be read: {reason}") from None
        names: dict[str, str] = {}
        try:
            _check_condition(body)
            for name in _names(body):
                names[name] = _resolve(name, paths)
        except ConstraintError as error:
            raise ConstraintError(f"constraint {text!r}: {error}") from None
        if not names:
            raise ConstraintError(f"constraint {text!r} names no hyperparameter")
        return cls(text, tuple(dict.fromkeys(names.values())), body, names)

    @property
    def compared(self) -> list[tuple[str, str]]:
        """The texts that hyperparameters are compared with: ``kind == 'adam'`` has ``("optimizer.kind", "adam")``."""
        found = []
        for node in ast.walk(self._body):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            paths = [self._path_of[_name(side)] for side in sides if _is_name(side)]
            texts = [side.value for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, str)]
            found += [(path, text) for path in paths for text in texts]
        return found

    def holds(self, values: Mapping[str, Any]) -> Any:
        """Whether it holds, for one value or an array of values of each hyperparameter in `paths`.

        An undefined condition, such as a division by zero, does not hold.

        Raises:
            ConstraintError: the values do not support its comparisons or arithmetic.
        """
        import numpy as np

        try:
            with np.errstate(all="ignore"):
                return self._evaluate(self._body, values)
        except TypeError as error:
            raise ConstraintError(f"constraint {self.text!r}: {error}") from None

    def _evaluate(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        import numpy as np

        match node:
            case ast.BoolOp(op, operands):
                return reduce(_JOINTS[type(op)], (self._evaluate(operand, values) for operand in operands))
            case ast.UnaryOp(ast.Not(), operand):
                return np.logical_not(self._evaluate(operand, values))
            case ast.Compare(left, operators, others):
                sides = [self._evaluate(side, values) for side in (left, *others)]
                pairs = zip(operators, sides, sides[1:], strict=False)
                return reduce(operator.and_, (_COMPARISONS[type(op)](one, other) for op, one, other in pairs))
            case ast.BinOp(left, op, right):
                return _ARITHMETIC[type(op)](self._evaluate(left, values), self._evaluate(right, values))
            case ast.UnaryOp(op, operand):
                value = self._evaluate(operand, values)
                return -value if isinstance(op, ast.USub) else value
            case ast.Constant(value):
                return _plain(value)
            case _:
                return _plain(values[self._path_of[_name(node)]])


def _plain(value: Any) -> Any:
    """Numbers as NumPy numbers: division by zero gives infinity, and huge powers overflow at once."""
    import numpy as np

    return np.float64(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _check_condition(node: ast.expr) -> None:
    match node:
        case ast.BoolOp(_, operands):
            for operand in operands:
                _check_condition(operand)
        case ast.UnaryOp(ast.Not(), operand):
            _check_condition(operand)
        case ast.Compare(left, operators, others):
            for op in operators:
                if type(op) not in _COMPARISONS:
                    raise ConstraintError("compare with <, <=, >, >=, == or !=")
            for side in (left, *others):
                _check_value(side)
        case _:
            raise ConstraintError(f"{ast.unparse(node)!r} is not a comparison; expected one such as 'a <= b'")


def _check_value(node: ast.expr) -> None:
    match node:
        case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
            _check_value(left)
            _check_value(right)
        case ast.UnaryOp(ast.USub() | ast.UAdd(), operand):
            _check_value(operand)
        case ast.Constant(None | bool() | int() | float() | str()):
            pass
        case ast.Name() | ast.Attribute() if _is_name(node):
            pass
        case _:
            raise ConstraintError(
                f"{ast.unparse(node)!r} is not allowed; use names, constants, + - * / // % ** and comparisons"
            )


def _is_name(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def _name(node: ast.expr) -> str:
    return f"{_name(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ast.unparse(node)


def _names(node: ast.AST) -> list[str]:
    """The dotted names in an expression, from left to right."""
    if isinstance(node, ast.Name | ast.Attribute):
        return [_name(node)]
    return [name for child in ast.iter_child_nodes(node) for name in _names(child)]


def _resolve(name: str, paths: Collection[str]) -> str:
    meant = [path for path in paths if path == name] or [path for path in paths if path.endswith(f".{name}")]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise ConstraintError(f"{name!r} is ambiguous: {', '.join(meant)}; write more of its path")
    endings = [path.rpartition(".")[2] for path in paths]
    raise ConstraintError(
        f"the sweep has no hyperparameter {name!r}; {nearest(name, dict.fromkeys([*paths, *endings]))}"
    )

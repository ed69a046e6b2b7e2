"""The search space as the unit cube: where hyperparameters become numbers and numbers hyperparameters.

A numeric parameter is one column: its value on a scale (linear, log, logit), mapped to 0..1. Whole numbers and
powers of two own equal cells on the scale they are drawn from. A categorical parameter is one column per choice;
exactly one is set, so that every two choices are at distance 1.

Counts and sizes that are drawn from a linear scale and span an order of magnitude (such as epochs from 1 to 50) have
a logarithmic column nevertheless, because their effect on cost and score depends on ratios.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.common.config import ConfigError, flatten, unflatten
from metta.common.plain import copied, plain, plain_number, shown
from metta.sweep.constraints import Constraint
from metta.sweep.distributions import KINDS, Scale, Step
from metta.sweep.protein.prior import Beta, Normal, Prior
from metta.sweep.protein_config import ParameterConfig, same

Array = NDArray[np.float64]
"""Real numbers. `Points` are [n, columns] in the unit cube, unless said otherwise."""

AUTO_SCALE = 0.2
"""Width of a local search, as a share of the range, where `scale` is "auto". Chosen by hand."""
LOG_RATIO = 8.0
"""The ratio of the ends of a linear range from which on its column is logarithmic: about an order of magnitude."""
_FAR = 100.0
"""The farthest column, in ranges: values farther out would spoil the arithmetic of the models."""
_LEAST = 0.01
"""Values below this share of a linear range's start count as that much, where the column is logarithmic."""
_ROUNDED = 1e11
"""Whole numbers above it are exact; below it they are rounded by way of 12 digits."""
_NARROW, _NARROW_DIGITS = 1e-6, 1e-5
"""Ranges this narrow, relative to their values, are linear on any scale, or need all digits."""
_NEAR_1 = 1.0 - 1e-6
"""Shares that come nearer to 1 need all digits."""
_MOST_CELLS = 2**52
_DECIMAL = 1e-9
"""Decimal bounds this near to a multiple of a decimal quantum, in quanta, are that multiple."""
_MOST_SHOWN = 12
_ONE_HOT = math.sqrt(0.5)
_BLOCK = 1024
_MOST_DRAWS = 64 * _BLOCK
"""Points that are drawn at most in search of those that meet the constraints."""


class SpaceError(ValueError):
    """Hyperparameters that the space cannot place; the message names the parameter."""


@dataclass(frozen=True)
class Numeric:
    """A parameter with an order.

    Attributes:
        path: dotted path.
        low, high: the smallest and largest value that may be suggested: ints, exact at any size, for whole numbers.
        bottom, top: the ends of the range on the parameter's scale, half a cell beyond `low` and `high` for whole
            numbers and powers of two.
        scale: "linear", "log" or "logit": the scale of the column.
        drawn: the scale on which random values are uniform.
        step: "none", "integer" or "power of two": which values there are.
        centre: the search centre, as a value.
        centre_is_given: whether the user gave the centre, as `mean`.
        width: width of a local search, as a share of the range.
        default: the value where none was recorded, or None.
        quantum: distance between values, where `step` is "integer": they are multiples of it.
        prior: how likely values are on the scale that they are drawn from; None for uniform.
        exact: whether whole numbers are so large that the column is computed with exact fractions.
        digits: whether values are rounded to 12 digits, which hides the noise of going through logarithms.
    """

    path: str
    low: int | float
    high: int | float
    bottom: float
    top: float
    scale: Scale
    drawn: Scale
    step: Step
    centre: int | float
    width: float
    default: int | float | None
    centre_is_given: bool = False
    quantum: int | float = 1
    prior: Prior | None = None
    exact: bool = False
    digits: bool = True

    columns = 1

    @classmethod
    def of(cls, path: str, config: ParameterConfig) -> Numeric:
        assert config.min is not None
        assert config.max is not None
        name, kind = config.distribution, KINDS[config.distribution]
        step: Step = kind.step if config.step is None else "integer"
        quantum = 1 if config.step is None else config.step
        low, high = _ends(config.min, config.max, step, quantum)
        if not low < high:
            raise SpaceError(f"{path}: {name} needs two values between {config.min:g} and {config.max:g}")
        bottom, top = _outer(low, high, step, quantum)
        drawn: Scale = kind.scale
        if step != "power of two" and _is_narrow(low, high, drawn):
            drawn = "linear"
        scale: Scale = "log" if drawn == "linear" and low >= 1 and high >= LOG_RATIO * low else drawn
        exact = step == "integer" and scale == "linear" and max(abs(low), abs(high)) > _ROUNDED * quantum
        ends = _warp(bottom, drawn), _warp(top, drawn)
        middle: int | float = (low + high) // 2 if exact else _unwarp((ends[0] + ends[1]) / 2, drawn)
        return cls(
            path=path,
            low=low,
            high=high,
            bottom=_warp(bottom, scale),
            top=_warp(top, scale),
            scale=scale,
            drawn=drawn,
            step=step,
            centre=middle if config.mean is None else config.mean,
            width=AUTO_SCALE if config.scale == "auto" else config.scale,
            default=None if config.default is None else plain_number(config.default),
            centre_is_given=config.mean is not None,
            quantum=quantum,
            prior=_prior(config, drawn, *ends),
            exact=exact,
            digits=high - low > _NARROW_DIGITS * max(abs(low), abs(high)) and not (scale == "logit" and high > _NEAR_1),
        )

    @property
    def log_ratio(self) -> float:
        """Logarithm of the largest value over the smallest, for a range of counts or sizes (1 and above), else 0."""
        return math.log(self.high / self.low) if self.low >= 1 else 0.0

    def place(self, uniform: Array) -> Array:
        """Turn numbers [n] that are uniform in 0..1 into columns [n, 1] of values with the parameter's distribution."""
        if self.prior is not None:
            uniform = self.prior.quantile(uniform)
        if self.scale != self.drawn:
            low, high = math.exp(self.bottom), math.exp(self.top)
            uniform = (np.log(low + uniform * (high - low)) - self.bottom) / (self.top - self.bottom)
        return uniform[:, None]

    def encode(self, value: Any) -> list[float]:
        """The column of a value; outside 0..1 if it is out of bounds.

        Raises:
            SpaceError: it has no place on the scale.
        """
        number = self._number(value)
        if self.exact:
            column = float(min(max(self._cell(number), Fraction(-_FAR)), Fraction(_FAR)))
        else:
            column = (_warp(number, self.scale) - self.bottom) / (self.top - self.bottom)
        return [min(max(column, -_FAR), _FAR)]

    @property
    def size(self) -> int | None:
        """How many values can be suggested; None where the range has no steps."""
        if self.step == "none":
            return None
        if self.step == "power of two":
            return round(math.log2(self.high / self.low)) + 1
        return self.cells

    def values(self) -> list[int | float]:
        """All values that can be suggested, where they can be counted."""
        assert self.size is not None
        if self.step == "power of two":
            return [self.low * 2**i for i in range(self.size)]
        return [self._value(cell) for cell in range(self.size)]

    def refusal(self, value: Any) -> str | None:
        """Why a value cannot be suggested, because it is outside the range or between its steps; None where it can."""
        try:
            number = plain_number(value)
            inside = self.low <= number <= self.high and self._is_on_step(number)
        except TypeError:
            return f"{shown(value)} is not a number"
        return None if inside else f"{shown(number)} is outside {self._range()}"

    def _is_on_step(self, number: int | float) -> bool:
        if self.step == "power of two":
            return math.frexp(number)[0] == 0.5
        if self.step == "none":
            return True
        if isinstance(self.quantum, int):
            return number % self.quantum == 0
        return abs(number / self.quantum - round(number / self.quantum)) < _DECIMAL

    def _number(self, value: Any) -> int | float:
        try:
            number = value if type(value) is float else plain_number(value)
        except TypeError:
            raise SpaceError(
                f"{self.path}: {shown(value)} is not a number; it is searched in {self._range()}"
            ) from None
        try:
            finite = math.isfinite(number)
        except OverflowError:
            raise SpaceError(f"{self.path}: {shown(number)} is too large; it is searched in {self._range()}") from None
        if not finite:
            raise SpaceError(f"{self.path}: {number} is not finite; it is searched in {self._range()}")
        if self.scale != self.drawn:
            return max(number, _LEAST * self.low)
        if self.scale == "log" and number <= 0:
            raise SpaceError(f"{self.path}: {shown(number)} is not above 0, and {self.path} is on a log scale")
        if self.scale == "logit" and not 0 < number < 1:
            raise SpaceError(
                f"{self.path}: {shown(number)} is not between 0 and 1, and {self.path} is on a logit scale"
            )
        return number

    def _range(self) -> str:
        integer = ", whole numbers" if self.quantum == 1 else f", multiples of {self.quantum:g}"
        kinds = {"integer": integer, "power of two": ", powers of two", "none": ""}
        scale = f", {self.drawn} scale" if self.drawn != "linear" and self.step != "power of two" else ""
        ends = (str(end) if isinstance(end, int) else f"{end:g}" for end in (self.low, self.high))
        return " to ".join(ends) + kinds[self.step] + scale

    def _cell(self, number: int | float) -> Fraction:
        """The exact column of a number among whole numbers, each in the middle of its cell."""
        low, quantum = Fraction(self.low), Fraction(self.quantum)
        return ((Fraction(number) - low) / quantum + Fraction(1, 2)) / self.cells

    @property
    def cells(self) -> int:
        """How many values there are, for multiples of a quantum."""
        return round(Fraction(self.high - self.low) / Fraction(self.quantum)) + 1

    def _value(self, cell: int) -> int | float:
        """The value of a cell, from 0, for multiples of a quantum."""
        return _multiple(round(Fraction(self.low) / Fraction(self.quantum)) + cell, self.quantum)

    def decode(self, columns: Array) -> int | float:
        column = min(max(float(columns[0]), 0.0), 1.0)
        if self.exact:
            return self._value(min(int(Fraction(column) * self.cells), self.cells - 1))
        value = _unwarp(self.bottom + column * (self.top - self.bottom), self.scale)
        value = min(max(value, float(self.low)), float(self.high))
        if self.step == "power of two":
            return min(max(_power_of_two(round(math.log2(value))), self.low), self.high)
        if self.digits and (self.step == "none" or value < _ROUNDED):
            value = float(f"{value:.12g}")
        number = value if self.step == "none" else _multiple(round(value / self.quantum), self.quantum)
        return min(max(number, self.low), self.high)

    def snap(self, columns: Array) -> Array:
        """Move unit values [n, 1] to the nearest that can be suggested."""
        clipped = np.clip(columns, 0.0, 1.0)
        if self.step == "none":
            return clipped
        if self.exact:
            return self._snap_cells(clipped)
        low, high = float(self.low), float(self.high)
        warped = self.bottom + clipped * (self.top - self.bottom)
        if self.step == "power of two":
            base = math.log(2)
            warped = np.clip(np.rint(warped / base) * base, math.log(low), math.log(high))
        elif self.scale == "log":
            warped = np.log(np.clip(np.rint(np.exp(warped) / self.quantum) * self.quantum, low, high))
        else:
            warped = np.clip(np.rint(warped / self.quantum) * self.quantum, low, high)
        return (warped - self.bottom) / (self.top - self.bottom)

    def _snap_cells(self, columns: Array) -> Array:
        """Move columns [n, 1] to the middle of their cells, unless cells are smaller than a float's steps."""
        cells = self.cells
        if cells > _MOST_CELLS:
            return columns
        return np.asarray((np.minimum(np.floor(columns * cells), cells - 1) + 0.5) / cells)


@dataclass(frozen=True)
class Categorical:
    """A parameter without order: one of `choices`."""

    path: str
    choices: tuple[Any, ...]
    centre: Any
    default: Any
    weights: tuple[float, ...] | None = None
    width: float = AUTO_SCALE

    log_ratio = 0.0

    @classmethod
    def of(cls, path: str, config: ParameterConfig) -> Categorical:
        assert config.choices
        centre = config.choices[0] if config.default is None else config.default
        weights = None if config.weights is None else tuple(config.weights)
        return cls(path, tuple(config.choices), centre, config.default, weights)

    @property
    def columns(self) -> int:
        return len(self.choices)

    @property
    def size(self) -> int:
        """How many values can be suggested."""
        return len(self.choices)

    def values(self) -> list[Any]:
        """All values that can be suggested."""
        return list(self.choices)

    def place(self, uniform: Array) -> Array:
        """Turn numbers [n] that are uniform in 0..1 into columns [n, choices], each choice as likely as it is."""
        if self.weights is None:
            chosen = np.minimum((uniform * self.columns).astype(int), self.columns - 1)
        else:
            ends = np.cumsum(self.weights)
            chosen = np.searchsorted(ends[:-1], uniform * ends[-1], side="right")
        return np.asarray(np.eye(self.columns)[chosen])

    def encode(self, value: Any) -> list[float]:
        """One column is set, that of the choice.

        Raises:
            SpaceError: it is not one of the choices.
        """
        try:
            wanted = value if type(value) is str else plain(value)
        except TypeError as error:
            raise SpaceError(f"{self.path}: {error}; the choices are: {self._offer()}") from None
        columns = [_ONE_HOT if same(wanted, choice) else 0.0 for choice in self.choices]
        if not any(columns):
            raise SpaceError(
                f"{self.path}: {shown(wanted)} is not one of the choices: {self._offer()}{self._guess(wanted)}"
            )
        return columns

    def refusal(self, value: Any) -> str | None:
        """Why a value cannot be suggested, because it is not a choice; None where it can."""
        try:
            self.encode(value)
        except SpaceError as error:
            return str(error).removeprefix(f"{self.path}: ")
        return None

    def _offer(self) -> str:
        texts = [_text(choice) for choice in self.choices[:_MOST_SHOWN]]
        rest = len(self.choices) - len(texts)
        return ", ".join(texts) + (f", ... ({len(self.choices)} in total)" if rest else "")

    def _guess(self, wanted: Any) -> str:
        by_text = {_text(choice): choice for choice in self.choices}
        lower = {text.lower(): text for text in by_text}
        close = get_close_matches(_text(wanted).lower(), lower, n=1, cutoff=0.6)
        return f" (did you mean {shown(by_text[lower[close[0]]])}?)" if close else ""

    def decode(self, columns: Array) -> Any:
        """The choice, as a copy: changing it does not change the choices."""
        return copied(self.choices[int(np.argmax(columns))])

    def snap(self, columns: Array) -> Array:
        """Set the largest of the columns [n, choices], and no other."""
        snapped = np.zeros_like(columns)
        snapped[np.arange(len(columns)), np.argmax(columns, axis=1)] = _ONE_HOT
        return snapped


Parameter = Numeric | Categorical


class Space:
    """The parameters of a search, and the way between their values and points of the unit cube.

    Args:
        parameters: nested, as in `ProteinConfig.parameters`.
        constraints: conditions between them. What the space draws meets all of them.

    Attributes:
        parameters: the parameters that are searched, in the order given.
        dimension: how many there are.
        columns: width of a point.
        group: [columns], the parameter that each column belongs to.
        numeric: [columns], whether a column is that of a parameter with an order.
        width: [columns], width of a local search.
    """

    def __init__(self, parameters: Mapping[str, Any], constraints: Sequence[str] = ()) -> None:
        self._template = flatten(parameters)
        self._constraints = [Constraint.parse(text, self._template) for text in constraints]
        self.parameters: list[Parameter] = [
            (Categorical if leaf.distribution == "categorical" else Numeric).of(path, leaf)
            for path, leaf in self._template.items()
            if isinstance(leaf, ParameterConfig)
        ]
        self.dimension = len(self.parameters)
        self.group = np.repeat(np.arange(self.dimension), [parameter.columns for parameter in self.parameters])
        self.columns = len(self.group)
        ends = np.cumsum([parameter.columns for parameter in self.parameters])
        self.slices = [slice(end - p.columns, end) for p, end in zip(self.parameters, ends, strict=True)]
        self.numeric = np.array([isinstance(self.parameters[g], Numeric) for g in self.group])
        self.width = np.array([self.parameters[g].width for g in self.group])

    @property
    def constrained(self) -> bool:
        return bool(self._constraints)

    @property
    def centre(self) -> Array:
        """The search centre, [columns]; where it does not meet the constraints, a point nearby that does."""
        centre = self.encode({parameter.path: parameter.centre for parameter in self.parameters})
        if self.allows(self.snap(centre[None]))[0]:
            return centre
        points = self._allowed(_BLOCK // 4, np.full(self.dimension, 0.5))
        return np.asarray(points[np.argmin(np.linalg.norm(points - centre, axis=1))])

    @property
    def size(self) -> int | None:
        """How many points there are, constraints apart; None where a range has no steps."""
        sizes = [parameter.size for parameter in self.parameters]
        known = [size for size in sizes if size is not None]
        return math.prod(known) if len(known) == len(sizes) else None

    def grid(self) -> Array:
        """All points [size, columns], constraints apart, where they can be counted."""
        tables = [p.snap(np.array([p.encode(value) for value in p.values()])) for p in self.parameters]
        rows = np.unravel_index(np.arange(self.size or 0), [len(table) for table in tables])
        return np.hstack([table[row] for table, row in zip(tables, rows, strict=True)])

    def allows(self, points: Array) -> NDArray[np.bool_]:
        """Whether points [n, columns] meet every constraint, [n].

        Raises:
            ConstraintError: see `Constraint.holds`.
        """
        allowed = np.ones(len(points), dtype=bool)
        for constraint in self._constraints:
            values = {path: self._values(path, points) for path in constraint.paths}
            allowed &= np.asarray(constraint.holds(values), dtype=bool)
        return allowed

    def _values(self, path: str, points: Array) -> Any:
        """The values of a hyperparameter at points [n, columns]: numbers as floats, anything else as objects."""
        for parameter, columns in zip(self.parameters, self.slices, strict=True):
            if parameter.path == path:
                values = [parameter.decode(point) for point in points[:, columns]]
                plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
                return np.array(values, dtype=float) if plain else _objects(values)
        return self._template[path]

    def encode(self, params: Mapping[str, Any]) -> Array:
        """Turn hyperparameters, nested or flat, into a point [columns]; outside the cube if out of bounds.

        Parameters that the space does not have are left out. One that is missing takes its default.

        Raises:
            SpaceError: a parameter is missing and has no default, or its value has no place on its scale.
        """
        return self.encode_flat(self.searched(params))

    def nested(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Hyperparameters, nested or flat, in the shape of what `decode` returns: with defaults and fixed values."""
        values = {p.path: p.default for p in self.parameters} | self.searched(params)
        return unflatten({path: copied(values.get(path, leaf)) for path, leaf in self._template.items()})

    def searched(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the searched parameters among hyperparameters, nested or flat, by dotted path."""
        try:
            flat = flatten(params)
        except (ConfigError, AttributeError) as error:
            raise SpaceError(f"{shown(params)} are no hyperparameters: {error}") from None
        flat = {path: value for path, value in flat.items() if not (isinstance(value, Mapping) and not value)}
        found = {parameter.path: _lookup(flat, params, parameter.path) for parameter in self.parameters}
        return {path: value for path, value in found.items() if value is not _MISSING}

    def encode_flat(self, values: Mapping[str, Any]) -> Array:
        """As `encode`, of hyperparameters by their dotted paths."""
        point: list[float] = []
        for parameter in self.parameters:
            value = values.get(parameter.path, _MISSING)
            if value is _MISSING:
                if parameter.default is None:
                    raise SpaceError(f"{parameter.path}: missing, and the parameter has no default")
                value = parameter.default
            point.extend(parameter.encode(value))
        return np.array(point)

    def decode(self, point: Array) -> dict[str, Any]:
        """Turn a point [columns] into hyperparameters, nested, with the fixed values among them."""
        values = {p.path: p.decode(point[s]) for p, s in zip(self.parameters, self.slices, strict=True)}
        return unflatten(
            {path: values[path] if path in values else copied(leaf) for path, leaf in self._template.items()}
        )

    def snap(self, points: Array) -> Array:
        """Move points [n, columns] to the nearest ones that decode exactly."""
        return np.hstack([p.snap(points[:, s]) for p, s in zip(self.parameters, self.slices, strict=True)])

    def quasi_random(self, indices: Sequence[int] | NDArray[np.int64], shift: Array) -> Array:
        """Points of the additive recurrence on the generalised golden ratio, [len(indices), columns].

        Its points fill the cube evenly from the first on, whatever their number
        (Roberts 2018, "The unreasonable effectiveness of quasirandom sequences").

        Args:
            indices: which points; only those that meet the constraints are counted.
            shift: [dimension], where the sequence starts.
        """
        if not self._constraints:
            return self._sequence(indices, shift)
        allowed = self._allowed(int(max(indices)) + 1, shift)
        return np.asarray(allowed[np.asarray(indices) % len(allowed)])

    def random(self, count: int, rng: np.random.Generator) -> Array:
        """Up to `count` random points that meet the constraints, and at least one, [., columns]."""
        points = self.place(rng.random((count, self.dimension)))
        allowed = points[self.allows(points)]
        draws = count
        while len(allowed) < count and draws < min(8 * count, _MOST_DRAWS):
            points = self.place(rng.random((count, self.dimension)))
            allowed = np.vstack([allowed, points[self.allows(points)]])
            draws += count
        return allowed[:count] if len(allowed) else self._allowed(1, rng.random(self.dimension))

    def _sequence(self, indices: Sequence[int] | NDArray[np.int64], shift: Array) -> Array:
        ratio = 2.0
        for _ in range(40):
            ratio = (1.0 + ratio) ** (1.0 / (self.dimension + 1))
        steps = ratio ** -np.arange(1.0, self.dimension + 1)
        return self.place((shift + np.outer(np.asarray(indices) + 1.0, steps)) % 1.0)

    def _allowed(self, count: int, shift: Array) -> Array:
        """The first points of the sequence that meet the constraints: `count`, or as many as are found."""
        found: list[Array] = []
        for start in range(0, _MOST_DRAWS, _BLOCK):
            points = self._sequence(np.arange(start, start + _BLOCK), shift)
            found.append(points[self.allows(points)])
            if sum(map(len, found)) >= count:
                break
        allowed = np.vstack(found)
        if not len(allowed):
            texts = "; ".join(constraint.text for constraint in self._constraints)
            raise SpaceError(f"of {_MOST_DRAWS} points of the space none meets the constraints: {texts}")
        return allowed[:count]

    def place(self, uniform: Array) -> Array:
        """Turn uniform numbers [n, dimension], one a parameter, into points [n, columns] that decode exactly."""
        return self.snap(np.hstack([p.place(uniform[:, j]) for j, p in enumerate(self.parameters)]))


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


_MISSING = object()


def _lookup(flat: Mapping[str, Any], params: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, also where the value is itself a mapping (a categorical choice may be)."""
    if path in flat:
        return flat[path]
    if path in params:
        return params[path]
    node: Any = params
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return _MISSING
        node = node[key]
    return node


def _text(choice: Any) -> str:
    """A choice as one would type it, cut to 40 characters."""
    try:
        text = choice if isinstance(choice, str) else json.dumps(choice)
    except ValueError:  # a whole number that Python does not write
        text = shown(choice)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _ends(low: int | float, high: int | float, step: str, quantum: int | float) -> tuple[int | float, int | float]:
    """The smallest and largest value within bounds."""
    if step == "integer" and isinstance(quantum, int):
        return math.ceil(Fraction(low) / quantum) * quantum, math.floor(Fraction(high) / quantum) * quantum
    if step == "integer":  # bounds and quantum are decimals: 0.3 is a multiple of 0.1
        ends = math.ceil(low / quantum - _DECIMAL), math.floor(high / quantum + _DECIMAL)
        return _multiple(ends[0], quantum), _multiple(ends[1], quantum)
    if step == "power of two":
        return _power_of_two(_log2(low, up=True)), _power_of_two(_log2(high, up=False))
    # A float next to a bound that no float is equal to lies inside
    least, most = float(low), float(high)
    return (
        least if least >= low else math.nextafter(least, math.inf),
        most if most <= high else math.nextafter(most, -math.inf),
    )


def _multiple(count: int, quantum: int | float) -> int | float:
    """So many times a quantum, as a person would write it."""
    return count * quantum if isinstance(quantum, int) else float(f"{count * quantum:.12g}")


def _prior(config: ParameterConfig, drawn: Scale, bottom: float, top: float) -> Prior | None:
    """How values are distributed on the scale that they are drawn from, whose ends are given."""
    if config.beta is not None:
        return Beta(*config.beta)
    if config.std is None or config.mean is None:
        return None
    return Normal((_warp(config.mean, drawn) - bottom) / (top - bottom), config.std / (top - bottom))


def _outer(low: int | float, high: int | float, step: str, quantum: int | float) -> tuple[float, float]:
    """The ends of the range: multiples of a quantum and powers of two own half a cell on both sides."""
    if step == "integer":
        return low - 0.5 * quantum, high + 0.5 * quantum
    if step == "power of two":
        return low / math.sqrt(2), high * math.sqrt(2)
    return low, high


def _is_narrow(low: int | float, high: int | float, scale: str) -> bool:
    """Whether the scale is a straight line over the range, as far as floats can tell."""
    distance = min(abs(low), abs(1 - high)) if scale == "logit" else abs(low)
    return high - low < _NARROW * distance


def _log2(value: int | float, up: bool) -> int:
    """The exact binary logarithm of a positive number, rounded up or down."""
    if isinstance(value, int):
        return (value - 1).bit_length() if up else value.bit_length() - 1
    mantissa, exponent = math.frexp(value)
    return exponent if up and mantissa > 0.5 else exponent - 1


def _power_of_two(exponent: int) -> int | float:
    """A whole power is an int, exact at any size."""
    return 1 << exponent if exponent >= 0 else 2.0**exponent


def _warp(value: float, scale: str) -> float:
    if scale == "log":
        return math.log(value)
    if scale == "logit":
        return math.log(value) - math.log1p(-value)
    return float(value)


def _unwarp(value: float, scale: str) -> float:
    try:
        if scale == "log":
            return math.exp(value)
        if scale == "logit":
            return 1.0 / (1.0 + math.exp(-value))
    except OverflowError:
        return math.inf if scale == "log" else math.exp(value)
    return value

"""Converts W&B's `early_terminate` to our early stopping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metta.common.errors import UserError, nearest

_KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")
_LAST = 10**9
"""Without `max_iter` there are rungs up to this many iterations."""


def read_early_terminate(value: Any, where: str, remarks: list[str]) -> dict[str, Any]:
    """The fields of `SweepConfig` that are equivalent to W&B's Hyperband.

    W&B compares each run at its bands with all other runs, and lets the best 1/eta continue: successive halving
    without brackets, which is our rule "asha". Its bands are numbers of iterations: ``min_iter * eta ** k``, or
    ``max_iter / eta ** k`` for k from 1 to s.

    Args:
        value: None if the file has none.
        where: its location, for error messages.
        remarks: remarks are appended to it.

    Raises:
        UserError: W&B would refuse it too; the message says what to write.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or value.get("type") != "hyperband":
        raise UserError(f"{where}: expected {{type: hyperband, min_iter: 3}}, not {value!r}")
    for key in value:
        if key not in _KEYS:
            raise UserError(f"{where}.{key} is not a key of W&B; {nearest(str(key), _KEYS)}")
    eta = _number(value.get("eta", 3), f"{where}.eta", above=1)
    if "strict" in value:
        remarks.append(f"{where}.strict: ignored, because W&B's search ignores it too")
    if "max_iter" in value:
        rungs = _from_last(value, eta, where)
        if "min_iter" in value:
            remarks.append(f"{where}.min_iter: ignored, as in W&B, because max_iter is given")
    elif "min_iter" in value:
        rungs = _from_first(_number(value["min_iter"], f"{where}.min_iter", above=0), eta)
        if "s" in value:
            remarks.append(f"{where}.s: ignored, as in W&B, because it needs max_iter")
    else:
        raise UserError(f"{where}: give min_iter, as in min_iter: 3, or max_iter and s")
    if not rungs:
        raise UserError(f"{where}: there is no iteration at which to stop a run; give a smaller s or eta, or min_iter")
    return {"early_stopping": "asha", "rungs": rungs, "eta": eta}


def _from_first(first: float, eta: float) -> list[int]:
    rungs = []
    while first < _LAST:
        rungs.append(int(first))
        first *= eta
    return sorted(set(rungs))


def _from_last(value: Mapping[str, Any], eta: float, where: str) -> list[int]:
    if "s" not in value:
        raise UserError(f"{where}: max_iter needs s, the number of bands before it, as in s: 2")
    band = float(_number(value["max_iter"], f"{where}.max_iter", above=0))
    rungs = []
    for _ in range(int(_number(value["s"], f"{where}.s", above=0))):
        band /= eta
        if band < 1:
            break
        rungs.append(int(band))
    return sorted(set(rungs))


def _number(value: Any, where: str, above: float) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > above:
        raise UserError(f"{where}: {value!r} is not a number above {above:g}")
    return value

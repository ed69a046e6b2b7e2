"""Arithmetic on one thread, under settings of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function's BLAS calls run on the thread that makes them.

    The matrices here are small. More threads gain little on an idle machine; on one that trains, where they wait for
    each other by spinning, they made a suggestion ten times slower. And sums do not depend on the number of cores.

    NumPy's floating-point settings are those of the thread, and training code may have changed them: here they are
    the default ones again.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with (
            _threads().limit(limits=1, user_api="blas"),
            np.errstate(divide="warn", over="warn", invalid="warn", under="ignore"),
        ):
            return function(*args, **kwargs)

    return limited


@cache
def _threads() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()

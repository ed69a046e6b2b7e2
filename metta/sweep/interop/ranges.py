"""Adjusts ranges of other tools to our rules."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from metta.common.plain import plain_float

LOGIT_MARGIN = 1e-6
"""A logit scale excludes 0 and 1; such a bound is moved inside by this much, as in Metta."""
ROUNDING = 1e-9
"""A search centre that is outside by at most this, relative to the bound, is set to the bound (a rounding error)."""

log = logging.getLogger(__name__)


def adjusted_range(path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A range whose bounds are valid on its scale, and whose search centre is corrected for rounding errors.

    Args:
        path: path of the parameter, for the log.
        fields: `distribution`, `min`, `max` and optionally `mean`.

    Raises:
        TypeError: a bound or the search centre is not a number.
        KeyError: a bound is missing.
    """
    adjusted = dict(fields)
    low, high = plain_float(fields["min"]), plain_float(fields["max"])
    if fields["distribution"] == "logit_normal":
        inside = max(low, LOGIT_MARGIN) if low == 0 else low, min(high, 1 - LOGIT_MARGIN) if high == 1 else high
        if inside != (low, high):
            log.warning("%s: a logit scale excludes 0 and 1; it is searched from %g to %.7g", path, *inside)
        (low, high) = (adjusted["min"], adjusted["max"]) = inside
    mean = fields.get("mean")
    if mean is not None:
        for bound in (low, high):
            if not low <= plain_float(mean) <= high and math.isclose(plain_float(mean), bound, rel_tol=ROUNDING):
                adjusted["mean"] = bound
    return adjusted

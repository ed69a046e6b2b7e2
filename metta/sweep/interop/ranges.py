"""What other tools write of ranges, made fit for ours."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from metta.common.plain import plain_float

LOGIT_MARGIN = 1e-6
"""A logit scale has no place for 0 and 1; a bound there is this far inside, as Metta has it."""
ROUNDING = 1e-9
"""A search centre that lies this little outside, relative to the bound, is the bound: it was computed from it."""

log = logging.getLogger(__name__)


def mended_range(path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A range with bounds that its scale has, and a search centre within them if rounding alone put it outside.

    Args:
        path: of the parameter, for the log.
        fields: `distribution`, `min`, `max` and, if it is there, `mean`.

    Raises:
        TypeError: a bound or the search centre is not a number.
        KeyError: a bound is missing.
    """
    mended = dict(fields)
    low, high = plain_float(fields["min"]), plain_float(fields["max"])
    if fields["distribution"] == "logit_normal":
        inside = max(low, LOGIT_MARGIN) if low == 0 else low, min(high, 1 - LOGIT_MARGIN) if high == 1 else high
        if inside != (low, high):
            log.warning("%s: a logit scale has no place for 0 and 1; it is searched from %g to %.7g", path, *inside)
        (low, high) = (mended["min"], mended["max"]) = inside
    mean = fields.get("mean")
    if mean is not None:
        for bound in (low, high):
            if not low <= plain_float(mean) <= high and math.isclose(plain_float(mean), bound, rel_tol=ROUNDING):
                mended["mean"] = bound
    return mended

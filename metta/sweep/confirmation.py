"""An old path of `metta.sweep.analysis.confirmation`."""

from metta.sweep.analysis.confirmation import SUFFIX as SUFFIX
from metta.sweep.analysis.confirmation import SURE as SURE
from metta.sweep.analysis.confirmation import ConfirmationResult as ConfirmationResult
from metta.sweep.analysis.confirmation import ConfirmationResult as Verdict
from metta.sweep.analysis.confirmation import choose as choose
from metta.sweep.analysis.confirmation import confirmation_result as confirmation_result
from metta.sweep.analysis.confirmation import confirmation_result as judge
from metta.sweep.analysis.confirmation import missing as missing

__all__ = ["SUFFIX", "SURE", "ConfirmationResult", "Verdict", "choose", "confirmation_result", "judge", "missing"]

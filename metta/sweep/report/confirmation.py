"""The results of fresh seeds as sentences."""

from __future__ import annotations

from metta.common.counts import count_text, plural
from metta.sweep.analysis.confirmation import ConfirmationResult, Difference, Setting
from metta.sweep.report.format import list_text


def sentences(result: ConfirmationResult) -> list[str]:
    """Sentences: whether the settings really differ, and how many seeds would show it."""
    if _seeds_change_nothing(result):
        return [
            "The score was the same on every seed, so the training does not use it: take it from trial.seed of a "
            "function, or from ${seed} or METTA_SEED of a program."
        ]
    if not result.differences:
        return ["There is only one setting, or too few scores, so nothing can be compared."] if result.settings else []
    best = result.settings[0]
    unsure = [str(each.worse) for each in result.differences if each.better == best.trial and not each.real]
    if unsure:
        named = f"{plural('trial', len(unsure))} {list_text(unsure)}"
        summary = f"Trial {best.trial} did best, but {named} may be as good."
    else:
        summary = f"Trial {best.trial} is the best, and not by luck."
    said = [summary, *map(_difference, result.differences)]
    return said if len(result.differences) == 1 else [*said, "All these statements together are 95% sure."]


def _seeds_change_nothing(result: ConfirmationResult) -> bool:
    """Whether each setting has the same score on several seeds, to the last digit."""
    repeated = [set(setting.scores) for setting in result.settings if len(setting.scores) > 1]
    return bool(repeated) and all(len(scores) == 1 for scores in repeated)


def setting_sentence(setting: Setting) -> str:
    """How one setting scored."""
    if setting.mean is None:
        return f"Trial {setting.trial} failed on all fresh seeds."
    sure = "" if setting.low is None else f" (95% sure of {setting.low:.3g} to {setting.high:.3g})"
    failed = f"; it failed on {setting.failures}" if setting.failures else ""
    seeds = count_text(setting.scores, "fresh seed")
    return f"Trial {setting.trial} on {seeds}: {setting.mean:.4g} on average{sure}{failed}."


def _difference(difference: Difference) -> str:
    better, worse = difference.better, difference.worse
    between = f"{difference.low:.4g} to {difference.high:.4g}"
    if difference.real:
        return (
            f"Trial {better} is better than trial {worse}: by {difference.mean:.4g} on average (95% sure of {between})."
        )
    needed = difference.seeds_needed
    seeds = "" if needed is None else f" About {count_text(needed, 'seed')} of each would show which is better."
    return (
        f"Trials {better} and {worse} cannot be distinguished: {better} is {difference.mean:.4g} better on average, "
        f"but any difference from {between} is possible.{seeds}"
    )

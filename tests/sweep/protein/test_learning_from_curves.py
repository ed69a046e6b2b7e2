"""How the optimiser stops, repeats and recommends in a sweep whose trials report as they train."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from metta.sweep.protein import Decision, Protein
from metta.sweep.protein.choosing import cautious_order, recommended, repeat_gains
from metta.sweep.protein.gaussian_process import GaussianProcess, Kernel
from metta.sweep.protein.history import correlation_t
from metta.sweep.protein.proposal.again import gain_of_new
from metta.sweep.protein_config import ParameterConfig, ProteinConfig

STEPS = 10
SPACE: dict[str, Any] = {
    "rate": ParameterConfig(min=1e-5, max=1e-1, distribution="log_normal"),
    "share": ParameterConfig(min=0.0, max=1.0, distribution="uniform"),
    "kind": ParameterConfig(choices=["a", "b"], distribution="categorical"),
}


def make(goal: str = "maximize", seed: int = 0, **options: Any) -> Protein:
    config = ProteinConfig.model_validate({"metric": "m", "goal": goal, "parameters": SPACE})
    chosen: dict[str, Any] = {"early_stopping": "protein", "repeats": True, **options}
    return Protein(config, seed=seed, **chosen)


def quality(params: dict[str, Any]) -> float:
    return float(-abs(math.log10(params["rate"]) + 3.0) - params["share"] + (params["kind"] == "b"))


Observed = list[tuple[str, dict[str, Any]]]


class Sweep:
    """A sweep of one worker, which keeps what the optimiser observed and what it answered."""

    def __init__(self, protein: Protein, noise: float = 0.0, sign: float = 1.0) -> None:
        self.protein, self.noise, self.sign = protein, noise, sign
        self.rng = np.random.default_rng(1)
        self.observed: Observed = []
        self.answers: list[Any] = []

    def trial(self) -> None:
        params, info = self.protein.suggest()
        self.answers.append((params, info))
        end = quality(params) + self.noise * self.rng.standard_normal()
        curve: list[tuple[float, float, float]] = []
        go_on = True
        while go_on and len(curve) < STEPS:
            step = len(curve) + 1
            curve.append((step, 2.0 * step, self.sign * (end - 3.0 * (1.0 - step / STEPS))))
            if step < STEPS:
                decision = self.protein.decide(info["number"], curve, STEPS)
                self.answers.append(decision)
                self.observed.append(("point", {"number": info["number"], "curve": list(curve)}))
                go_on = decision.go_on
        ended: dict[str, Any] = {
            "params": params,
            "score": curve[-1][2],
            "cost": curve[-1][1],
            "number": info["number"],
            "info": info,
            "curve": curve,
            "total_steps": STEPS,
            "stopped": not go_on,
        }
        self.protein.observe(**ended)
        self.observed.append(("ended", ended))

    def run(self, trials: int) -> Sweep:
        for _ in range(trials):
            self.trial()
        return self


def stopped(protein: Protein) -> list[int]:
    return [o.number for o in protein.observations if o.stopped]


def test_it_stops_trials_that_look_bad_and_finds_a_good_one() -> None:
    protein = Sweep(make()).run(40).protein
    ends = {o.number: quality(dict(o.params)) for o in protein.observations}
    assert len(stopped(protein)) > 15
    assert ends[protein.best().number] == max(ends[o.number] for o in protein.observations if o.is_whole)
    assert np.mean([ends[n] for n in stopped(protein)]) < np.mean(
        [e for n, e in ends.items() if n not in stopped(protein)]
    )


def test_no_run_is_stopped_that_the_budget_can_pay_for_to_the_last_trial() -> None:
    """A whole run costs 20."""
    ample, tight = (Sweep(make(num_trials=20, max_cost=cost)).run(20) for cost in (401.0, 200.0))
    assert stopped(ample.protein) == []
    assert any("the budget has 20.1 for each trial to the last" in str(answer) for answer in ample.answers)
    assert len(stopped(tight.protein)) > 5
    assert stopped(Sweep(make(max_cost=1e6)).run(20).protein), "without `num_trials` more trials can spend it"


def test_a_budget_alone_is_divided_where_runs_differ_in_length() -> None:
    """Fifteen runs cost 20 each, then a bad one would cost 12."""

    def bad_one(max_cost: float, shortest: int) -> Decision:
        protein = make(max_cost=max_cost)
        for number in range(15):
            params = {"rate": 10.0 ** (-5 + 0.2 * number), "share": 0.05 * number, "kind": "a"}
            steps = shortest if number % 2 else STEPS
            curve = [(step, 20.0 * step / steps, number * step / steps) for step in range(1, steps + 1)]
            protein.observe(params, float(number), 20.0, number=number, curve=curve, total_steps=steps)
        return protein.decide(protein.suggest()[1]["number"], [(1, 1.2, -1.0)], STEPS)

    tight, ample = 300.0 + 15 * 11.9, 300.0 + 15 * 12.1
    assert not bad_one(tight, shortest=8).go_on
    spared = bad_one(ample, shortest=8)
    assert spared.go_on, "it has enough for each of 15 more trials"
    assert "the budget has 12.1 for each trial that it is planned for" in spared.reason
    assert not bad_one(ample, shortest=STEPS).go_on, "with runs of one length it goes on to as many as it can pay for"


def test_suggestions_use_a_budget_that_the_number_of_trials_would_leave() -> None:
    """A trial costs 0.1 to 10; the first twelve cost 13 in all."""

    def costs(max_cost: float | None) -> list[float]:
        protein = make(num_trials=20, max_cost=max_cost, early_stopping="off")
        rng = np.random.default_rng(0)
        for number in range(12):
            params = {"rate": 10.0 ** rng.uniform(-5, -1), "share": rng.random() ** 2, "kind": "a"}
            protein.observe(params, rng.standard_normal(), 0.1 * 100.0 ** params["share"], number=number)
        infos = [protein.suggest()[1] for _ in range(8)]
        return [info["cost"] for info in infos if info["source"] == "model"]

    used = costs(29.0)
    assert len(used) > 3
    assert min(used) >= 0.99, "the budget has 2 for each trial that is left"
    assert 1.5 < min(costs(500.0)) < 5.0, "however much it has, candidates are not only the dearest of all"
    assert min(costs(None)) < 0.9, "without a budget there is nothing to use"


def test_a_minimised_metric_gives_the_same_sweep() -> None:
    up, down = Sweep(make()).run(20).protein, Sweep(make("minimize"), sign=-1.0).run(20).protein
    assert stopped(up) == stopped(down)
    assert up.best().number == down.best().number


def test_a_stopped_trial_is_no_failure_and_is_never_the_best() -> None:
    protein = Sweep(make()).run(30).protein
    assert not any(o.is_failure for o in protein.observations)
    assert protein.best().number not in stopped(protein)
    assert not set(stopped(protein)) & {o.number for o in protein.pareto_front()}


def test_there_is_no_best_before_a_whole_run() -> None:
    protein = make()
    params, info = protein.suggest()
    protein.observe(params, None, 1.0, number=info["number"], curve=[(1, 1, 0.0)], total_steps=STEPS, stopped=True)
    with pytest.raises(LookupError):
        protein.best()
    protein.suggest()


def test_the_same_history_gives_the_same_decisions() -> None:
    sweep = Sweep(make(), noise=0.5).run(25)
    other = make()
    answers: list[Any] = []
    answers.append(other.suggest())
    for what, seen in sweep.observed:
        if what == "point":
            answers.append(other.decide(seen["number"], seen["curve"], STEPS))
        else:
            other.observe(**seen)
            answers.append(other.suggest())
    assert answers[:-1] == sweep.answers


def test_it_can_be_built_again_from_finished_trials_at_any_time() -> None:
    sweep = Sweep(make(), noise=0.5).run(25)
    other = make()
    for what, seen in sweep.observed[::-1]:
        if what == "ended":
            other.observe(**seen)
    assert other.best() == sweep.protein.best()
    assert other.suggest() == sweep.protein.suggest()


def test_what_it_says_is_json() -> None:
    sweep = Sweep(make(), noise=0.5).run(15)
    json.dumps([answer[1] for answer in sweep.answers if isinstance(answer, tuple)])


def test_noise_is_answered_by_repeats_and_repeats_are_whole_runs() -> None:
    protein = Sweep(make(seed=3), noise=2.0).run(60).protein
    repeats = [o for o in protein.observations if o.repeat_of is not None]
    assert repeats
    for repeat in repeats:
        first = next(o for o in protein.observations if o.number == repeat.repeat_of)
        assert first.repeat_of is None
        assert dict(first.params) == dict(repeat.params)
        assert not repeat.stopped
    assert protein.best().repeat_of is None


def test_without_noise_one_repeat_shows_that_more_are_useless() -> None:
    protein = Sweep(make()).run(60).protein
    assert len([o for o in protein.observations if o.repeat_of is not None]) <= 1


def test_repeats_are_only_made_when_asked_for() -> None:
    protein = Sweep(make(repeats=False), noise=1.0).run(40).protein
    assert all(o.repeat_of is None for o in protein.observations)


@pytest.mark.parametrize("rule", ["asha", "median", "hyperband"])
def test_other_rules_stop_too(rule: str) -> None:
    assert stopped(Sweep(make(early_stopping=rule, min_share=0.1)).run(30).protein)


def test_off_never_stops() -> None:
    sweep = Sweep(make(early_stopping="off")).run(12)
    assert not stopped(sweep.protein)
    assert all(a.go_on for a in sweep.answers if isinstance(a, Decision))


def test_failures_are_learnt_from() -> None:
    protein = make()
    for _ in range(25):
        params, info = protein.suggest()
        bad = params["kind"] == "a"
        score = None if bad else quality(params)
        protein.observe(params, score, 1.0, is_failure=bad, number=info["number"])
    late = [o.params["kind"] for o in protein.observations[12:]]
    assert late.count("b") > late.count("a")


def test_decide_is_asked_of_running_trials_only() -> None:
    with pytest.raises(KeyError, match="no outstanding trial 3"):
        make().decide(3, [(1, 1, 0.0)], STEPS)


def test_a_plateau_stops_none_for_good() -> None:
    """Equal scores tell nothing, so about as many go on as when nothing is known."""
    protein = make(repeats=False)
    for _ in range(30):
        params, info = protein.suggest()
        curve: list[tuple[float, float, float]] = []
        go_on = True
        while go_on and len(curve) < STEPS:
            curve.append((len(curve) + 1, len(curve) + 1, 0.0))
            go_on = len(curve) == STEPS or protein.decide(info["number"], curve, STEPS).go_on
        protein.observe(
            params, 0.0, len(curve), number=info["number"], curve=curve, total_steps=STEPS, stopped=not go_on
        )
    assert len(stopped(protein)) < 25
    protein.best()


@pytest.mark.parametrize("options", [{"early_stopping": "never"}, {"min_share": 0.0}, {"min_share": 1.0}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        make(**options)


def test_caution_prefers_what_is_known() -> None:
    assert cautious_order(np.array([1.0, 1.1]), np.array([0.01, 1.0])).tolist() == [0, 1]


def test_repeats_are_worth_most_for_rivals_of_the_best() -> None:
    gains = repeat_gains(np.array([1.0, 0.95, -3.0]), np.array([0.1, 0.1, 0.1]), 0.3)
    assert min(gains[:2]) > gains[2] >= 0.0
    assert repeat_gains(np.array([1.0]), np.array([0.1]), 0.3).tolist() == [0.0]


@pytest.mark.parametrize(("configurations", "whole_runs"), [(35, 10.0), (73, 20.0), (150, 40.0)])
def test_what_new_configurations_gain_is_how_the_largest_of_normal_scores_grows(
    configurations: int, whole_runs: float
) -> None:
    draws = np.random.default_rng(0).standard_normal((20_000, configurations + 20))
    grows = draws.max(axis=1).mean() - draws[:, :configurations].max(axis=1).mean()
    of_a_whole_run = grows / 20 * configurations / whole_runs
    assert gain_of_new(configurations, whole_runs) == pytest.approx(of_a_whole_run, rel=0.35)


def test_how_surely_a_model_predicts_what_it_has_not_seen() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((30, 2))
    smooth = np.sin(3.0 * points[:, 0]) + points[:, 1]
    targets = (smooth - smooth.mean()) / smooth.std()
    half_random = np.concatenate([rng.standard_normal(15), targets[15:]])
    kernel = Kernel.of_vector(np.log(np.array([0.5, 0.5, 1.0, 0.1, 0.01])), np.arange(2))

    exact, same = np.full(30, 0.01), np.ones(30)

    def t(values: Any, errors: Any = exact, rows: int = 30, costs: Any = same) -> float:
        model = GaussianProcess(points[:rows], values[:rows], errors[:rows], kernel)
        return correlation_t(model, costs[:rows], np.arange(rows))

    assert t(targets) > 15.0
    assert abs(t(rng.permutation(targets))) < 2.0
    assert t(-targets) == pytest.approx(t(targets))
    assert t(half_random) < 3.0 < t(half_random, np.repeat([10.0, 0.01], 15))  # by how sure each observation is
    assert t(targets, rows=2) == 0.0
    assert t(targets, costs=np.full(30, np.nan)) == t(targets)


def test_that_longer_runs_score_higher_does_not_make_a_model_trusted() -> None:
    rng = np.random.default_rng(1)
    points = rng.random((30, 3))
    length, share, noise = points[:, 0], points[:, 1], 0.1 * rng.standard_normal(30)
    costs = 100.0**length
    kernel = Kernel.of_vector(np.log(np.array([0.7, 0.7, 0.7, 1.0, 0.1, 0.05])), np.arange(3))

    def t(scores: Any, costs: Any) -> float:
        targets = (scores - scores.mean()) / scores.std()
        return correlation_t(GaussianProcess(points, targets, np.full(30, 0.05), kernel), costs, np.arange(30))

    assert t(length + noise, np.ones(30)) > 5.0
    assert abs(t(length + noise, costs)) < 1.5
    assert t(length + share + noise, costs) > 5.0


def test_what_is_believed_is_in_the_units_of_the_last_value_and_not_of_their_average() -> None:
    """Curves rise to their end, so the average of the last values is below what a run gives."""
    protein = Sweep(make(early_stopping="off")).run(25).protein
    ends = {o.number: quality(dict(o.params)) for o in protein.observations}
    errors = [s.score - ends[s.number] for s in protein.beliefs()]
    assert abs(np.mean(errors)) < 0.05


@pytest.mark.parametrize("ends", [(1e308, -1e308), (1.0, 1e300), (1e-308, 2e-308), (0.0, 0.0)])
@pytest.mark.filterwarnings("error")
def test_any_finite_score_is_learnt_from_and_believed(ends: tuple[float, float]) -> None:
    protein = make(early_stopping="off")
    for trial in range(12):
        params, info = protein.suggest()
        score = ends[trial % 2] * (0.5 + 0.5 * params["share"])
        curve = [(step, 0.25 * step, score * step / 4) for step in (1, 2, 4)]
        protein.observe(params, score, 1.0, number=info["number"], curve=curve, total_steps=4)
    assert "model" in {trial.info["source"] for trial in protein._history.trials}
    assert all(np.isfinite([s.score, s.score_std, s.low, s.high]).all() for s in protein.beliefs())


def test_a_model_that_predicts_is_asked_for_the_best_of_the_space() -> None:
    sweeps = [Sweep(make(seed=seed, early_stopping="off")).run(25) for seed in range(3)]
    found = [max(quality(dict(o.params)) for o in each.protein.observations) for each in sweeps]
    assert np.mean(found) > 0.95  # of at most 1


def test_suggestions_for_many_workers_differ_and_repeat_each_configuration_once_at_a_time() -> None:
    protein = Sweep(make(), noise=1.0).run(40).protein
    suggestions = protein.suggest(8)
    again = [info["repeat_of"] for _, info in suggestions if "repeat_of" in info]
    assert len(again) == len(set(again))
    fresh = [json.dumps(params) for params, info in suggestions if "repeat_of" not in info]
    assert len(fresh) == len(set(fresh))


def test_running_trials_count_at_rungs() -> None:
    protein = make(repeats=False, early_stopping="asha")
    decisions = []
    for value, (_, info) in zip([5.0, 4.0, 3.0, 2.0, 1.0, 0.0], protein.suggest(6), strict=True):
        decisions.append(protein.decide(info["number"], [(1, 1, value)], STEPS))
    assert [d.compared for d in decisions[2:]] == [3, 4, 5, 6]
    assert [d.go_on for d in decisions[2:]] == [False] * 4


def test_a_few_trials_are_never_stopped_and_say_so() -> None:
    sweep = Sweep(make(repeats=False)).run(60)
    exempt = [a for a in sweep.answers if isinstance(a, Decision) and "regardless" in a.reason]
    assert exempt
    assert all(a.go_on for a in exempt)
    assert len(exempt) < 0.2 * 60 * 3


def test_points_between_rungs_change_nothing() -> None:
    protein = make()
    _, info = protein.suggest()
    protein.decide(info["number"], [(1, 1, 0.0)], STEPS)
    decision = protein.decide(info["number"], [(1, 1, 0.0), (2, 2, 0.0)], STEPS)
    assert decision.go_on
    assert decision.share is None


def test_a_budget_is_what_all_trials_cost_together() -> None:
    protein = Sweep(make(max_cost=150.0)).run(14).protein
    spent = sum(o.cost or 0.0 for o in protein.observations)
    budget = protein._history.budget
    assert budget.spent == pytest.approx(spent)
    assert 0.0 < budget.cost_weight == pytest.approx((1.0 - spent / 150.0) ** 2)


def test_standings_add_up_and_hold_the_best() -> None:
    protein = Sweep(make(), noise=0.3).run(50).protein
    beliefs = protein.beliefs()
    assert sum(s.probability for s in beliefs) == pytest.approx(1.0)
    by_number = {s.number: s for s in beliefs}
    assert protein.best().number in by_number
    assert all(s.low < s.score < s.high for s in beliefs)
    assert by_number[protein.best().number].probability > 0.1


def test_intervals_of_a_smooth_score_with_little_noise_are_narrow_and_hold_what_training_again_gives() -> None:
    protein = Sweep(make(early_stopping="off", max_cost=500.0), noise=0.02).run(25).protein
    ends = {o.number: quality(dict(o.params)) for o in protein.observations}
    beliefs = protein.beliefs()
    assert np.median([s.high - s.low for s in beliefs]) < 3.5 * np.std([ends[s.number] for s in beliefs])
    assert np.mean([s.low < ends[s.number] < s.high for s in beliefs]) > 0.9
    best = protein.best().number
    for other in range(8):  # as if a limit of the cost left these two
        found = recommended(protein._history, {best, other})
        assert ends[found.number] >= max(ends[best], ends[other]) - 0.05


def test_all_of_the_tools_own_values_are_believed_to_be_good_and_a_part_of_them_is_not() -> None:
    own = {"rate": 1e-2, "share": 0.5, "kind": "a"}
    proteins = [make(own_values=values) for values in ({}, {"rate": 1e-2, "kind": "a"}, own)]
    for protein in proteins:  # the same trials, whatever was suggested
        for number, (rate, share) in enumerate([(1e-2, 0.5), (1e-3, 0.1), (1e-4, 0.9), (1e-5, 0.3), (1e-1, 0.7)]):
            params = {"rate": rate, "share": share, "kind": "a"}
            info = protein.suggest()[1] | {"number": number}
            protein.forget(number)
            protein.suggested(number, params, info)
            curve = [(step, step, quality(params)) for step in range(1, STEPS + 1)]
            protein.observe(params, quality(params), 10.0, number=number, info=info, curve=curve, total_steps=STEPS)
    plain, part, trusted = (protein.beliefs()[0].score for protein in proteins)
    assert plain == part < trusted


def test_late_in_a_budget_one_repeat_shows_the_noise_if_nothing_else_did() -> None:
    """A trial costs 20."""
    ample, scarce = (
        Sweep(make(seed=2, early_stopping="off", max_cost=cost), noise=1.0).run(16) for cost in (4e3, 400.0)
    )
    repeats = [[o.number for o in each.protein.observations if o.repeat_of is not None] for each in (ample, scarce)]
    assert repeats == [[], [15]]
    assert "how much runs with different seeds differ is not known" in scarce.answers[-STEPS][1]["reason"]


def test_the_late_repeat_costs_no_more_than_is_left() -> None:
    """A trial costs 20, and the first repeat comes late, because nothing else has shown the noise."""
    seen = Sweep(make(seed=2, early_stopping="off", max_cost=400.0), noise=1.0).run(15)
    before = [values for kind, values in seen.observed if kind == "ended"]
    rich, poor = (make(seed=2, early_stopping="off", max_cost=300.0 + left) for left in (25.0, 15.0))
    for protein in (rich, poor):
        for values in before:
            protein.observe(**values)
    assert "how much runs with different seeds differ" in rich.suggest()[1]["reason"]
    assert "repeat_of" not in poor.suggest()[1]


def test_nothing_is_repeated_that_costs_more_than_is_left() -> None:
    """A trial costs 20."""
    seen = Sweep(make(early_stopping="off"), noise=0.5)
    while sum("repeat_of" in answer[1] for answer in seen.answers if isinstance(answer, tuple)) < 2:
        seen.trial()
    *before, (_, last) = [(kind, values) for kind, values in seen.observed if kind == "ended"]
    rich, poor = (make(early_stopping="off", max_cost=20.0 * len(before) + left) for left in (25.0, 15.0))
    for protein in (rich, poor):
        for _, values in before:
            protein.observe(**values)
    assert rich.suggest()[1].get("repeat_of") == last["info"]["repeat_of"]
    assert "repeat_of" not in poor.suggest()[1]


def test_more_configurations_than_the_model_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metta.sweep.protein.surrogate.MAX_MODEL_POINTS", 20)
    protein = Sweep(make(), noise=0.5).run(60).protein
    history = protein._history
    modelled = {int(history.evidence.known.numbers[row]) for row in history.surrogate.rows}  # type: ignore[union-attr]
    whole = {o.number for o in protein.observations if o.is_whole and o.repeat_of is None}
    assert {belief.number for belief in protein.beliefs()} == modelled & whole
    assert protein.best().number in modelled & whole
    protein.suggest(3)
    left = max(whole - modelled)
    assert recommended(history, {left}).number == left


def test_standings_of_a_minimised_metric_are_in_its_units() -> None:
    up = Sweep(make()).run(20).protein.beliefs()
    down = Sweep(make("minimize"), sign=-1.0).run(20).protein.beliefs()
    assert [(-s.high, -s.low) for s in down] == [pytest.approx((s.low, s.high)) for s in up]


def test_there_are_no_standings_without_curves() -> None:
    with pytest.raises(LookupError, match="curves"):
        make(early_stopping="off", repeats=False).beliefs()


def test_predictions_are_in_the_units_of_the_metric() -> None:
    sweep = Sweep(make(), noise=0.3).run(60)
    good = {"rate": 1e-3, "share": 0.1, "kind": "b"}
    bad = {"rate": 1e-1, "share": 0.9, "kind": "a"}
    better, worse = sweep.protein.predict_all([good, bad])
    assert better.score > worse.score
    assert -1.0 < better.score < 2.0
    assert 0.05 < better.noise_std < 2.0
    assert better.cost == pytest.approx(20.0, rel=0.1)

"""In a space with few points nothing is suggested twice while something is left."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.sweep.protein import Protein
from metta.sweep.protein.proposal.untried import ALL_TRIED
from metta.sweep.protein.space import Space
from metta.sweep.protein_config import ParameterConfig, ProteinConfig

PARAMETERS = st.one_of(
    st.integers(1, 4).map(lambda n: ParameterConfig(min=1, max=1 + n, distribution="int_uniform")),
    st.integers(1, 3).map(lambda n: ParameterConfig(min=3, max=3 + n, distribution="int_log_normal")),
    st.integers(1, 3).map(lambda n: ParameterConfig(min=0.5, max=0.5 * 2**n, distribution="uniform_pow2")),
    st.integers(1, 4).map(lambda n: ParameterConfig(choices=list("abcd"[:n]), distribution="categorical")),
)
SPACES = st.lists(PARAMETERS, min_size=1, max_size=3).filter(lambda found: (Space(named(found)).size or 0) <= 40)


def named(parameters: list[ParameterConfig]) -> dict[str, Any]:
    return {f"x{i}": parameter for i, parameter in enumerate(parameters)}


@settings(max_examples=15, deadline=None)
@given(
    space=SPACES,
    seed=st.integers(0, 5),
    running=st.integers(1, 5),
    options=st.sampled_from([{}, {"max_cost": 50.0}, {"early_stopping": "asha"}, {"repeats": True}]),
    design=st.sampled_from([None, 0, 20]),
)
def test_nothing_is_suggested_twice_while_something_is_left(
    space: list[ParameterConfig], seed: int, running: int, options: dict[str, Any], design: int | None
) -> None:
    config = ProteinConfig(metric="m", parameters=named(space)).model_copy(deep=True)
    config.settings.num_random_samples = design
    protein, asked = Protein(config, seed=seed, **options), 0
    seen: set[str] = set()
    size = Space(config.parameters).size
    while len(seen) < (size or 0):
        batch = protein.suggest(running)
        for params, info in batch:
            asked += "repeat_of" not in info
            seen.add(json.dumps(params))
            protein.observe(params, float(sum(map(ord, str(params))) % 7), 1.0, number=info["number"])
            full = len(seen) == size
            assert len(seen) == asked or full
            assert (ALL_TRIED not in info.get("fallback", "")) or full
    _, info = protein.suggest()
    assert ALL_TRIED in info.get("fallback", "") + info.get("reason", "")


def test_where_all_was_tried_repeats_are_runs_of_configurations_that_are_known() -> None:
    space = {"arm": ParameterConfig(choices=list("abcd"), distribution="categorical")}
    protein = Protein(ProteinConfig(metric="m", parameters=space), seed=0, repeats=True)
    noise = np.random.default_rng(0)

    def run(params: dict[str, Any], info: dict[str, Any]) -> None:
        protein.observe(params, float("abcd".index(params["arm"]) + noise.normal()), 1.0, number=info["number"])

    suggested = protein.suggest(4)
    first = {params["arm"]: info["number"] for params, info in suggested}
    for params, info in suggested:
        run(params, info)
    batch = protein.suggest(6)
    for params, info in batch:
        assert first[params["arm"]] == info["repeat_of"]
        assert ALL_TRIED in info["reason"]
    assert len({info["repeat_of"] for _, info in batch[:4]}) == 4, "none twice at the same time while another is left"
    for _ in range(30):
        run(*protein.suggest())
    repeated = [each.repeat_of for each in protein.observations]
    assert repeated.count(first["d"]) > repeated.count(first["a"])


def test_a_constraint_leaves_few_points_of_a_large_space() -> None:
    whole = ParameterConfig(min=1, max=300, distribution="int_uniform")
    config = ProteinConfig(metric="m", parameters={"a": whole, "b": whole}, constraints=["a + b <= 4"])
    assert len({json.dumps(params) for params, _ in Protein(config, seed=0).suggest(2)}) == 2


def test_a_deliberate_repeat_is_still_made() -> None:
    config = ProteinConfig(metric="m", parameters={"n": ParameterConfig(min=1, max=50, distribution="int_uniform")})
    config.settings.resample_frequency = 3
    protein = Protein(config, seed=0)
    params = []
    for _ in range(13):
        suggested, _ = protein.suggest()
        params.append(suggested["n"])
        protein.observe(suggested, float(suggested["n"]), 1.0)
    assert len(set(params)) < len(params)

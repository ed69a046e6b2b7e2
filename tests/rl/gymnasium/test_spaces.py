from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from metta.common.errors import UserError
from metta.rl.gymnasium.policy import FlatObservations, GymnasiumPolicy
from metta.rl.gymnasium.spaces import Flattener, GymnasiumSpec

NUMBER = Box(-1.0, 1.0, (2,), np.float32)


def image(*shape: int) -> Box:
    return Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("space", "kinds", "images"),
    [
        (NUMBER, ["numbers"], [()]),
        (Discrete(3), ["flags"], [()]),
        (image(64, 48, 3), ["image"], [(3, 64, 48)]),
        (image(4, 64, 48), ["image"], [(4, 64, 48)]),
        (image(64, 48), ["image"], [(1, 64, 48)]),
        (image(2, 64, 48, 3), ["image"], [(6, 64, 48)]),
        (image(128), ["numbers"], [()]),
        (spaces.Dict(b=image(9, 9, 1), a=spaces.Tuple([NUMBER, MultiBinary(2)])), None, None),
    ],
)
def test_a_policy_sees_every_space(space: spaces.Space[Any], kinds: list[str] | None, images: Any) -> None:
    spec = GymnasiumSpec.of(1, space, Discrete(2))
    if kinds:
        assert [leaf.kind for leaf in spec.leaves] == kinds
        assert [leaf.image for leaf in spec.leaves] == images
    else:
        assert {leaf.path: leaf.kind for leaf in spec.leaves} == {"b": "image", "a.0": "numbers", "a.1": "flags"}
    space.seed(0)
    flat = Flattener(space)(space.sample())
    assert flat.shape == (spec.size,)
    logits, value = GymnasiumPolicy(spec, 8, normalized=True)(torch.from_numpy(flat[None].astype(spec.dtype)))
    assert logits.shape == (1, 2)
    assert value.shape == (1,)


def test_an_image_keeps_its_channels_and_rows() -> None:
    pixels = np.arange(64 * 48 * 3, dtype=np.int64).reshape(64, 48, 3).astype(np.uint8)
    spec = GymnasiumSpec.of(1, image(64, 48, 3), Discrete(2))
    policy = GymnasiumPolicy(spec, 8, normalized=True)
    seen: list[torch.Tensor] = []
    policy.images["0"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    policy(torch.from_numpy(Flattener(image(64, 48, 3))(pixels))[None])
    np.testing.assert_allclose(seen[0][0].numpy() * 255, pixels.transpose(2, 0, 1), atol=1e-3)


@pytest.mark.parametrize(
    "space",
    [
        Discrete(4, start=3),
        MultiDiscrete([2, 5], start=[1, 0]),
        MultiDiscrete(np.array([[2, 5], [3, 3]])),
        MultiBinary((2, 2)),
        Box(-1.0, 3.0, (2, 2), np.float32),
        Box(-np.inf, np.inf, (3,), np.float64),
        Box(np.array([0.0, -np.inf]), np.array([1.0, 2.0]), dtype=np.float64),
    ],
)
def test_a_policy_can_do_every_action(space: spaces.Space[Any]) -> None:
    spec = GymnasiumSpec.of(1, NUMBER, space)
    policy = GymnasiumPolicy(spec, 8, normalized=False)
    observations = torch.zeros(200, 2)
    with torch.no_grad():
        heads, _ = policy(observations)
        actions = policy.sample(heads, torch.Generator().manual_seed(0))
        log_probs, entropies, _ = policy.evaluate(FlatObservations(observations), actions)
    assert all(space.contains(spec.actions.to_environment(action)) for action in actions.numpy())
    torch.testing.assert_close(log_probs, policy.log_probs(heads, actions))
    # The entropy is the mean of minus the log-probability
    assert -float(log_probs.mean()) == pytest.approx(float(entropies.mean()), abs=0.35)


def test_reals_span_their_bounds() -> None:
    actions = GymnasiumSpec.of(1, NUMBER, Box(-1.0, 3.0, (1,), np.float32)).actions
    assert [float(actions.to_environment(np.array([x]))[0]) for x in (-2.0, -1.0, 0.0, 1.0)] == [-1, -1, 1, 3]


@pytest.mark.parametrize(
    ("observations", "actions", "reason"),
    [
        (spaces.Dict(a=spaces.Text(3)), Discrete(2), "the observation 'a' is a Text"),
        (NUMBER, Box(0, 5, (1,), np.int32), "the actions are a Box"),
    ],
)
def test_other_spaces_are_refused(observations: Any, actions: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        GymnasiumSpec.of(1, observations, actions)

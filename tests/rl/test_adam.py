from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from metta.rl.adam import Adam
from metta.rl.trainer_config import OptimizerConfig


@pytest.mark.parametrize(("kind", "decay"), [("adam", 0.0), ("adam", 0.1), ("adamw", 0.1)])
def test_it_steps_as_the_optimizers_of_torch_do(kind: Literal["adam", "adamw"], decay: float) -> None:
    ours, theirs = _parameters(), _parameters()
    config = OptimizerConfig(type=kind, learning_rate=0.03, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=decay)
    adam = Adam(ours, config)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    reference = kinds[kind](theirs, lr=0.03, betas=(0.8, 0.9), eps=1e-3, weight_decay=decay)

    for step in range(5):
        if step == 3:
            adam.learning_rate = reference.param_groups[0]["lr"] = 0.01
        adam.step(parameters_to_vector(_gradients(ours)))
        for parameter, gradient in zip(theirs, _gradients(theirs), strict=True):
            parameter.grad = gradient
        reference.step()

    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)


def test_it_continues_from_the_state_of_another() -> None:
    parameters, copies = _parameters(), _parameters()
    first = Adam(parameters, OptimizerConfig())
    for _ in range(3):
        first.step(parameters_to_vector(_gradients(parameters)))
    with torch.no_grad():
        for copy, parameter in zip(copies, parameters, strict=True):
            copy.copy_(parameter)
    second = Adam(copies, OptimizerConfig())
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})

    for adam, trained in ((first, parameters), (second, copies)):
        adam.step(parameters_to_vector(_gradients(trained)))

    assert all(torch.equal(copy, parameter) for copy, parameter in zip(copies, parameters, strict=True))


def _parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(3, 4), (5,)]]


def _gradients(parameters: list[torch.nn.Parameter]) -> tuple[Tensor, ...]:
    """The gradients of a loss that is not quadratic."""
    return torch.autograd.grad((parameters_to_vector(parameters) - 1).pow(4).sum(), parameters)

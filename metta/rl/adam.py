"""Adam (Kingma and Ba, arXiv 1412.6980), and AdamW (Loshchilov and Hutter, arXiv 1711.05101)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim.adam import adam

from metta.rl.trainer_config import OptimizerConfig


class Adam:
    """Changes weights by their gradient, as configured.

    The arithmetic is torch's own function. Its wrappers in `torch.optim` import torch's compiler when the first one is
    created, which takes seconds in every process that trains; and one step of all weights together is faster than one
    step for each parameter.

    Attributes:
        config: as given.
        learning_rate: the learning rate of the next step.
        weights: all parameters, which are views of this vector.
        mean, square: decaying means of the gradients and of their squares, in the order of the weights.
        steps: how many were made, as a float32 tensor.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> None:
        """Turn the parameters into views of one vector, which this optimizer changes."""
        self.learning_rate = config.learning_rate
        self.config = config
        self._parameters = list(parameters)
        self.weights = parameters_to_vector(self._parameters).detach().clone()
        vector_to_parameters(self.weights, self._parameters)
        self.steps = torch.zeros((), device=self.weights.device)
        self.mean, self.square = torch.zeros_like(self.weights), torch.zeros_like(self.weights)

    @torch.no_grad()
    def step(self, gradient: Tensor, skip: Tensor | None = None) -> None:
        """Change the weights by the gradient of all parameters, flattened and concatenated.

        Args:
            skip: if it is 1, nothing changes. A GPU can thus decide whether to step without a wait.
        """
        adam(
            [self.weights],
            [gradient],
            [self.mean],
            [self.square],
            [],
            [self.steps],
            fused=True,
            found_inf=skip,
            decoupled_weight_decay=self.config.type == "adamw",
            amsgrad=False,
            beta1=self.config.beta1,
            beta2=self.config.beta2,
            lr=self.learning_rate,
            weight_decay=self.config.weight_decay,
            eps=self.config.eps,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Its moments, by ``<index of the parameter>.<moment>``, and ``step``."""
        sizes = [parameter.numel() for parameter in self._parameters]
        return {"step": self.steps} | {
            f"{index}.{name}": part.view_as(parameter)
            for name, moments in (("exp_avg", self.mean), ("exp_avg_sq", self.square))
            for index, (parameter, part) in enumerate(zip(self._parameters, torch.split(moments, sizes), strict=True))
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the state of another optimizer. Raises KeyError if part of it is missing."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(tensors[name])

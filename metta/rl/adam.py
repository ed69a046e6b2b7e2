"""Adam (Kingma and Ba, arXiv 1412.6980), and AdamW (Loshchilov and Hutter, arXiv 1711.05101)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from metta.rl.trainer_config import OptimizerConfig

_SLOTS = ("step", "exp_avg", "exp_avg_sq")


class Adam:
    """Steps weights along their gradients, in the way its configuration says.

    This is torch's own function. The classes round it in `torch.optim` import torch's compiler when the first of them
    is made, which takes seconds of each process that trains.

    Attributes:
        learning_rate: of the next step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> None:
        self.learning_rate = config.learning_rate
        self._config = config
        self._parameters = list(parameters)
        self._state = [
            {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }
            for parameter in self._parameters
        ]

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter by its ``grad``."""
        gradients = [parameter.grad for parameter in self._parameters]
        steps, means, squares = ([state[slot] for state in self._state] for slot in _SLOTS)
        adam(
            list(self._parameters),
            [gradient for gradient in gradients if gradient is not None],
            means,
            squares,
            [],
            steps,
            fused=True,
            decoupled_weight_decay=self._config.type == "adamw",
            amsgrad=False,
            beta1=self._config.beta1,
            beta2=self._config.beta2,
            lr=self.learning_rate,
            weight_decay=self._config.weight_decay,
            eps=self._config.eps,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """What it remembers, by ``<number of the parameter>.<what>``."""
        return {f"{index}.{slot}": tensor for index, state in enumerate(self._state) for slot, tensor in state.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Remember what another one did. Raises KeyError where some of it is missing."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(tensors[name])

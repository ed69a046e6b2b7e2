"""Hyperparameters of training. Imports neither torch nor mettagrid, so that a sweep can be described without them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from metta.common.config import Config

MIN_HORIZON = 8
"""At least this many steps of an environment between updates; smaller batches use fewer environments."""


class OptimizerConfig(Config):
    """How gradients change weights."""

    type: Literal["adam", "adamw"] = Field("adam", description="adamw decays weights separately from the gradient")
    learning_rate: float = Field(5e-3, gt=0, description="size of a step")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of past gradients")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean of their squares")
    eps: float = Field(1e-5, gt=0, description="added to the root of that mean, so that no step is too large")
    weight_decay: float = Field(0.0, ge=0, description="how much weights decay towards 0 at each step")


class PPOConfig(Config):
    """The loss of proximal policy optimisation (arXiv 1707.06347) and generalised advantages (arXiv 1506.02438)."""

    clip_coef: float = Field(0.2, gt=0, description="how far the probability ratio may move per update")
    vf_clip_coef: float | None = Field(
        None, gt=0, description="how far a value may move per update; unset is clip_coef, and a large one never clips"
    )
    ent_coef: float = Field(0.005, ge=0, description="weight of the entropy bonus")
    vf_coef: float = Field(0.5, ge=0, description="weight of the value loss")
    gae_lambda: float = Field(0.9, ge=0, le=1, description="0 trusts the value function, 1 the observed return")
    gamma: float = Field(0.98, ge=0, le=1, description="discount per step")
    max_grad_norm: float = Field(0.5, gt=0, description="gradients with a larger norm are scaled down to it")
    update_epochs: int = Field(2, ge=1, description="passes over each batch")
    target_kl: float | None = Field(
        None,
        gt=0,
        description="after a pass whose mean approx_kl exceeds this, a batch gets no more passes",
    )

    @property
    def value_clip(self) -> float:
        """How far a value may move per update."""
        return self.clip_coef if self.vf_clip_coef is None else self.vf_clip_coef


class PolicyConfig(Config):
    """The network."""

    hidden_size: int = Field(128, ge=1, description="width of its layers")
    memory: Literal["none", "mingru"] = Field(
        "none", description="mingru remembers earlier steps of the episode in a recurrent layer; it trains by PyTorch"
    )
    type: str | None = Field(
        None,
        pattern=r"^[\w.]+:\w+$",
        description="your own class, as package.module:Class; see `metta.rl.policy.policy_class`",
    )


class TrainerConfig(Config):
    """A training run."""

    total_timesteps: int = Field(1_000_000, ge=1, description="total agent steps, rounded up to whole updates")
    batch_size: int = Field(8_192, ge=1, description="agent steps per update; rounded to whole steps of all agents")
    minibatch_size: int = Field(1_024, ge=1, description="agent steps per gradient step; at most the batch")
    seed: int = Field(0, ge=0, lt=2**31, description="same seed, machine and thread count: the same run")
    optimizer: OptimizerConfig = OptimizerConfig()
    ppo: PPOConfig = PPOConfig()
    policy: PolicyConfig = PolicyConfig()
    anneal_learning_rate: bool = Field(False, description="lower the learning rate to 0 over the run")
    annealing: Literal["linear", "cosine"] = Field("linear", description="how an annealed learning rate falls")
    num_environments: int = Field(32, ge=1, description="largest number of environments that step together")
    num_ranks: int | None = Field(
        None,
        ge=1,
        description="processes that train together; unset is one for each GPU, and on CPUs what is fastest",
    )
    num_workers: int | None = Field(
        None,
        ge=0,
        description="processes that step a rank's environments; 0 is the rank itself, unset what is fastest",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is cuda if there is a GPU")
    checkpoint_seconds: float = Field(15.0, ge=0, description="least time between checkpoints")
    checkpoints_kept: int = Field(2, ge=1, description="how many of the newest checkpoints are kept")
    profile: bool = Field(False, description="log at the end how the time was spent")


def round_batch(batch_size: int, num_agents: int, num_environments: int, num_ranks: int = 1) -> tuple[int, int]:
    """Choose the number of environments and their steps so that a batch is as close to `batch_size` as possible.

    A small batch uses fewer environments, so that it has at least `MIN_HORIZON` steps of each. All ranks have the same
    number of environments, and at least one.

    Returns:
        environments and horizon; ``environments * num_agents * horizon`` is the effective batch size.

    Example:
        >>> round_batch(10_000, num_agents=24, num_environments=16)
        (16, 26)
    """
    environments = min(num_environments, batch_size // (num_agents * MIN_HORIZON))
    environments = max(1, environments // num_ranks) * num_ranks
    horizon = max(1, round(batch_size / (environments * num_agents)))
    return environments, horizon

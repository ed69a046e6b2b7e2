"""Search the hyperparameters of a small neural network that reads handwritten digits: a sweep without RL.

The data come with scikit-learn: 1,797 images of 8 by 8 pixels. A quarter is held out for the score.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from metta.sweep import ParameterConfig, RunningTrial
from metta.sweep.function import FunctionSweep, function_sweep

PARAMETERS: dict[str, Any] = {
    "learning_rate": ParameterConfig(min=1e-4, max=1e-1, distribution="log_normal"),
    "hidden_units": ParameterConfig(min=8, max=128, distribution="int_log_normal"),
    "batch_size": ParameterConfig(min=16, max=256, distribution="uniform_pow2"),
    "weight_decay": ParameterConfig(min=1e-6, max=1e-1, distribution="log_normal"),
    "activation": ParameterConfig(choices=["relu", "tanh"], distribution="categorical"),
    "epochs": ParameterConfig(min=2, max=40, distribution="int_log_normal"),
}


def sweep(sweep_name: str = "digits", num_trials: int = 30) -> FunctionSweep:
    """Sweep `train` over `PARAMETERS`.

    Unpromising trials are stopped early, and promising hyperparameters are repeated with other seeds.

    Args:
        sweep_name: the same name resumes or extends the sweep.
        num_trials: the number of trials.
    """
    return function_sweep(
        train,
        PARAMETERS,
        metric="accuracy",
        num_trials=num_trials,
        name=sweep_name,
        early_stopping="protein",
        seeds_per_trial="auto",
    )


def train(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
    """Train a network and return its accuracy on held-out digits."""
    from sklearn.neural_network import MLPClassifier

    seen, held_out, seen_labels, held_out_labels = digits()
    trial.restart_clock()
    model = MLPClassifier(
        hidden_layer_sizes=[config["hidden_units"]],
        activation=config["activation"],
        learning_rate_init=config["learning_rate"],
        batch_size=config["batch_size"],
        alpha=config["weight_decay"],
        random_state=trial.seed,
    )
    accuracy = 0.0
    epochs = config["epochs"]
    for epoch in range(1, epochs + 1):
        model.partial_fit(seen, seen_labels, classes=range(10))
        accuracy = model.score(held_out, held_out_labels)
        if not trial.report(epoch, {"accuracy": accuracy, "loss": model.loss_}, total=epochs):
            break
    return {"accuracy": accuracy, "loss": model.loss_}


@cache
def digits() -> Any:
    """Images with pixels in 0..1, the training set and the held-out set, then the labels of both."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    return train_test_split(images / 16.0, labels, test_size=0.25, random_state=0, stratify=labels)

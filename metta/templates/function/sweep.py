"""A sweep of a function. Run it: python sweep.py"""

import numpy as np

from metta.sweep import ParameterConfig, optimize


def train(config, trial):  # type: ignore[no-untyped-def]
    """Train a linear model by stochastic gradient descent. Put your own training here.

    `config` has the hyperparameters. `trial` has `seed`, `run_dir`, and `report`, which shows progress and answers
    whether the trial continues.
    """
    data = np.random.default_rng(0)  # the same data in each trial
    inputs = data.standard_normal((4000, 30))
    targets = inputs @ data.standard_normal(30) + data.standard_normal(4000)
    rng = np.random.default_rng(trial.seed)  # another seed in each trial
    weights = np.zeros(30)
    loss = float("inf")
    for epoch in range(1, config["epochs"] + 1):
        for rows in np.array_split(rng.permutation(3000), 3000 // config["batch"]):
            errors = inputs[rows] @ weights - targets[rows]
            weights -= config["lr"] * inputs[rows].T @ errors / len(rows)
        loss = float(np.mean((inputs[3000:] @ weights - targets[3000:]) ** 2))
        if not trial.report(epoch, {"loss": loss}, total=config["epochs"]):
            break  # the optimiser stops unpromising trials early
    return {"loss": loss}  # numbers by name; one that is not finite is a failure


if __name__ == "__main__":
    result = optimize(
        train,
        name="my_function",  # the same name resumes the sweep, and a larger num_trials extends it
        parameters={
            "lr": ParameterConfig(min=1e-5, max=0.3, distribution="log_normal"),
            "batch": ParameterConfig(min=8, max=512, distribution="uniform_pow2"),
            "epochs": ParameterConfig(min=1, max=20, distribution="int_uniform"),
        },
        metric="loss",
        goal="minimize",
        num_trials=25,
    )
    print(result.best_params, result.best_score)

"""Draws the pictures of concepts.md: ``uv run python docs/pictures.py``.

What they show is a real search, by Protein, of a made problem: the accuracy of a classifier after so many epochs at
some learning rate, and what training it costs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from metta.sweep.protein import Protein
from metta.sweep.protein.protein import Array
from metta.sweep.protein.types import Observation
from metta.sweep.protein_config import ParameterConfig, ProteinConfig

IMAGES = Path(__file__).parent / "images"
BUDGET = 1500.0
INK, FAINT, ACCENT, SECOND = "#22272e", "#b9bdc4", "#3f51b5", "#d9822b"


def accuracy(learning_rate: float, epochs: int, noise: random.Random) -> float:
    """Best near 3e-3, and better the longer it trains, ever more slowly."""
    distance = math.log10(learning_rate / 3e-3)
    return 0.95 * math.exp(-0.35 * distance**2) * (1 - math.exp(-epochs / 12)) + noise.gauss(0, 0.008)


def search() -> Protein:
    """Spend the budget."""
    space = {
        "learning_rate": ParameterConfig(min=1e-5, max=1e-1, distribution="log_normal"),
        "epochs": ParameterConfig(min=1, max=60, distribution="int_log_normal"),
    }
    protein = Protein(ProteinConfig(metric="accuracy", parameters=space), seed=0, max_cost=BUDGET)
    noise, spent = random.Random(0), 0.0
    while spent < BUDGET:
        params, _ = protein.suggest()
        cost = 2.0 + params["epochs"] * 1.5
        protein.observe(params, accuracy(params["learning_rate"], params["epochs"], noise), cost)
        spent += cost
    return protein


def costs_and_scores(trials: Sequence[Observation]) -> tuple[Array, Array]:
    return np.array([trial.cost for trial in trials], float), np.array([trial.score for trial in trials], float)


def draw_front(axes: Axes, protein: Protein) -> None:
    """Every trial by cost and score, with the Pareto front and what is recommended for two purses."""
    axes.scatter(*costs_and_scores(protein.observations), s=18, color=FAINT, label="trials")
    axes.step(*costs_and_scores(protein.pareto_front()), where="post", color=ACCENT, label="Pareto front")
    for purse in (20.0, None):
        best = protein.best(max_cost=purse)
        name = "recommended" if purse is None else f"recommended up to {purse:g} s"
        axes.annotate(
            name,
            (best.cost or 0, best.score or 0),
            (best.cost or 0, (best.score or 0) - 0.17),
            ha="center" if purse else "right",
            color=SECOND,
            arrowprops={"arrowstyle": "-", "color": SECOND},
        )
    axes.set(xscale="log", xlabel="cost of the trial, seconds", ylabel="accuracy")
    axes.set_xlim(right=150)
    axes.legend(frameon=False, loc="upper left")


def draw_model(axes: Axes, protein: Protein) -> None:
    """What the score's Gaussian process believes of the learning rate, after trials of 40 epochs and more."""
    rates = np.geomspace(1e-5, 1e-1, 200)
    predictions = protein.predict_all([{"learning_rate": rate, "epochs": 50} for rate in rates])
    mean = np.array([prediction.score for prediction in predictions])
    deviation = np.array([prediction.score_std for prediction in predictions])
    axes.fill_between(rates, mean - 2 * deviation, mean + 2 * deviation, color=ACCENT, alpha=0.15, lw=0)
    axes.plot(rates, mean, color=ACCENT, label="model at 50 epochs, with two standard deviations")
    long = [trial for trial in protein.observations if trial.params["epochs"] >= 40]
    rates_tried = [trial.params["learning_rate"] for trial in long]
    axes.scatter(rates_tried, costs_and_scores(long)[1], s=18, color=INK, label="trials of 40 epochs or more", zorder=3)
    axes.set(xscale="log", xlabel="learning rate", ylabel="accuracy", ylim=(-0.15, 1.25))
    axes.legend(frameon=False, loc="upper left")


def draw_spending(axes: Axes, protein: Protein) -> None:
    """The cost of each trial, in the order in which they were made."""
    costs, scores = costs_and_scores(protein.observations)
    best = np.maximum.accumulate(scores)
    axes.bar(range(len(costs)), costs, color=FAINT)
    axes.set(xlabel="trial", ylabel="cost, seconds")
    right = axes.twinx()
    right.plot(range(len(best)), best, color=ACCENT)
    right.set_ylabel("best accuracy so far", color=ACCENT)
    right.spines[["top"]].set_visible(False)


def main() -> None:
    plt.rcParams.update({"font.size": 10, "text.color": INK, "axes.spines.top": False, "axes.spines.right": False})
    protein = search()
    for name, draw in (("front", draw_front), ("model", draw_model), ("spending", draw_spending)):
        figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
        draw(axes, protein)
        figure.savefig(IMAGES / f"{name}.png", dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    main()

"""Averages through shared memory."""

from __future__ import annotations

import random
import time
from multiprocessing.connection import Connection

import pytest
import torch

from metta.rl.launch import _context
from metta.rl.shared_mean import CHUNK, SharedMean

SIZE, ROUNDS = 3, 60


def _average(shared: SharedMean, rank: int, connection: Connection) -> None:
    """Take part in every round, early in some and late in others, and send the results."""
    generator = random.Random(rank)
    sums = []
    for round_ in range(ROUNDS):
        values = torch.full((10,), float(rank + SIZE * round_))
        time.sleep(generator.choice([0.0, 0.0, 0.005]))
        shared.average(values, rank, 240.0, lambda: True)
        sums.append(values.tolist())
    long = torch.arange(CHUNK + 5, dtype=torch.float32) * (rank + 1)
    shared.average(long, rank, 240.0, lambda: True)
    connection.send((sums, long[-1].item()))


def test_every_process_has_the_mean_of_every_round() -> None:
    context = _context()
    shared = SharedMean(context, SIZE)
    pipes = [context.Pipe() for _ in range(SIZE)]
    processes = [context.Process(target=_average, args=(shared, rank, pipes[rank][1])) for rank in range(SIZE)]
    for process in processes:
        process.start()
    for ours, _ in pipes:
        assert ours.poll(240)
        sums, last = ours.recv()
        assert sums == [[1.0 + SIZE * round_] * 10 for round_ in range(ROUNDS)]
        assert last == pytest.approx((CHUNK + 4) * 2.0)
    for process in processes:
        process.join()


def test_waiting_for_a_dead_process_times_out() -> None:
    with pytest.raises(TimeoutError):
        SharedMean(_context(), 2).average(torch.zeros(3), 0, 30.0, lambda: False)
    with pytest.raises(TimeoutError):
        SharedMean(_context(), 2).average(torch.zeros(3), 0, 0.0, lambda: True)

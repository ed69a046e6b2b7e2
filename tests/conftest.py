"""Settings of the whole suite."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The networks of the tests are so small that a second thread only waits, and spins while it does.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline for an example and the same examples every time: a test fails for the code, not the machine or bad luck.
# Other examples are tried with --hypothesis-profile=default.
settings.load_profile("ci")

# What runs in the background of a shell ignores Ctrl-C, and so do its children; tests that send one are about others.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Whoever runs the suite may be logged in to W&B; nothing of it belongs there.
os.environ["WANDB_MODE"] = "disabled"


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """Put back the handlers of signals: ``Tuner.fit`` leaves its own for SIGINT, and the next test's Ctrl-C is lost."""
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in caught}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)

"""Settings of the whole suite."""

import os

# The networks of the tests are so small that a second thread only waits, and spins while it does.
os.environ.setdefault("OMP_NUM_THREADS", "1")

"""Training by PPO: environments in worker processes, a policy over tokens, checkpoints."""

import os

# Threads of torch that wait for each other give their core away. By default they spin, and where the cores are shared
# with anything else an update then takes not twice but forty times as long. Read once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

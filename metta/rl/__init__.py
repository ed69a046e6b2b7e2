"""Training by PPO: environments in worker processes, a policy over tokens, checkpoints.

Read the room in this order:

1. `trainer_config`: the hyperparameters. `trainer`: the loop, which names every other part.
2. `ppo`: advantages, loss and update. `policy` and `tokens`: the network. `memory`: its recurrent layer, if it has
   one, and the sequences that it learns from. `adam`: the optimizer.
   `kernel/` computes the same as these, compiled and several times faster, on CPUs.
3. `game`: what the loop needs of a game. `environment`, `episodes`, `vector_environment`, `rollout`: how mettagrid
   provides it. `batch_player`, `kernel_rollout`: the same by the kernel, in workers that choose actions themselves.
   `worker_pool`, `shared_arrays`: processes that share arrays.
   `gymnasium/`: how Gymnasium and PettingZoo provide it.
4. `plan`, `progress`, `checkpoint`: the plan of a run, its progress, and how it resumes.
   `stopwatch`, `memory_use`: its use of time and memory.
5. `ranks`, `launch`, `shared_mean`, `processes`, `threads`: several processes that train one policy.
6. `player`: a trained policy that plays.
"""

import os

# Makes threads of torch sleep while they wait for each other. By default they spin, and on cores that are shared with
# other processes an update then takes forty times as long instead of twice. Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

"""The tables that the policy was tuned on, and those that are only reported.

Fixed before any tuning. Within each kind the names were ordered by the SHA-256 of the name, and the first 5 PPO, 3 DQN,
1 SAC and 3 TaskSet tables became the reported ones.
"""

from __future__ import annotations

KINDS = {"ppo": "arl_ppo_", "dqn": "arl_dqn_", "sac": "arl_sac_", "taskset": "taskset_"}
"""Kinds of tables by the prefix of their names."""

REPORTED = (
    "arl_ppo_atari_double_dunk",
    "arl_ppo_box2d_lunar_lander",
    "arl_ppo_brax_ant",
    "arl_ppo_brax_humanoid",
    "arl_ppo_minigrid_empty_random",
    "arl_dqn_atari_this_game",
    "arl_dqn_box2d_lunar_lander",
    "arl_dqn_minigrid_door_key",
    "arl_sac_brax_halfcheetah",
    "taskset_patch128_lstm128_avg_bs64",
    "taskset_patch32_irnn64_relu_last_bs128",
    "taskset_patch32_lstm128_bs128",
)
TUNED_ON = (
    "arl_ppo_atari_battle_zone",
    "arl_ppo_atari_phoenix",
    "arl_ppo_cc_acrobot",
    "arl_ppo_cc_continuous_mountain_car",
    "arl_ppo_minigrid_unlock",
    "arl_dqn_atari_qbert",
    "arl_dqn_cc_cartpole",
    "arl_dqn_cc_mountain_car",
    "arl_sac_brax_ant",
    "arl_sac_cc_pendulum",
    "taskset_patch128_lstm128_embed128_bs64",
    "taskset_patch32_gru64_avg_bs128",
    "taskset_patch32_vrnn64_relu_avg_bs128",
)
SETS = {"reported": REPORTED, "tuned-on": TUNED_ON, "all": (*REPORTED, *TUNED_ON)}


def kind_of(table: str) -> str:
    """The kind of a table, by its name; "other" if it is not one of `KINDS`."""
    return next((kind for kind, prefix in KINDS.items() if table.startswith(prefix)), "other")

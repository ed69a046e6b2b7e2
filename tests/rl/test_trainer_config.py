import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from metta.rl.trainer_config import MIN_HORIZON, round_batch


@settings(max_examples=500)
@given(st.integers(1_024, 1_048_576), st.integers(1, 128), st.integers(1, 256))
def test_any_batch_size_is_rounded_to_the_nearest_possible(batch_size: int, agents: int, most: int) -> None:
    environments, horizon = round_batch(batch_size, agents, most)
    assert 1 <= environments <= most
    assert horizon >= 1
    effective = environments * horizon * agents
    step = environments * agents
    assert abs(effective - batch_size) <= step / 2
    if batch_size >= agents * MIN_HORIZON:
        assert horizon >= MIN_HORIZON
        assert abs(effective - batch_size) <= batch_size / (2 * MIN_HORIZON)


def test_configuration_imports_neither_torch_nor_mettagrid() -> None:
    code = "import sys, metta.rl.trainer_config; assert not {'torch', 'mettagrid'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

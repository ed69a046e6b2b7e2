"""What a swept Tool declares is stored with the sweep, and read without importing what it trains."""

from __future__ import annotations

import subprocess
import sys

from metta.common.entry_point import EntryPoint
from metta.sweep.definition import SweepDefinition, built_from_fields
from metta.sweep.traits import ToolTraits
from tests.support.parabola import parabola_definition


def stored_without_traits(tool_class: str) -> SweepDefinition:
    data = parabola_definition(3).model_dump(mode="json") | {"tool_class": tool_class}
    del data["traits"]
    return SweepDefinition.model_validate(data)


def test_traits_are_stored() -> None:
    traits = ToolTraits(seed_path="seed", speed="frames_per_second", speed_unit="frames/s")
    definition = parabola_definition(3).model_copy(update={"traits": traits})
    assert SweepDefinition.model_validate(definition.model_dump(mode="json")).traits == traits


def test_an_older_sweep_of_a_train_tool_has_its_traits() -> None:
    for tool_class in ("metta.tools.train:TrainTool", "metta.tools.gymnasium:GymnasiumTool"):
        traits = stored_without_traits(tool_class).traits
        assert traits.retrain == "metta.tools.sweep.retrain"
        assert traits.seed_path == "trainer.seed"


def test_an_older_sweep_of_anything_else_has_the_defaults() -> None:
    for tool_class in ("metta.sweep.function:FunctionTrial", "no.such.package:Tool", "tool:Tool", ""):
        assert stored_without_traits(tool_class).traits == ToolTraits()


def test_reading_them_imports_no_trainer() -> None:
    code = (
        "import sys; from metta.sweep.traits import traits_of_older; "
        "assert traits_of_older('metta.tools.train:TrainTool').speed; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'mettagrid', 'metta.tools.training')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_seed_that_the_sweep_fixes_is_known() -> None:
    definition = parabola_definition(3).model_copy(update={"traits": ToolTraits(seed_path="seed")})
    assert definition.fixed_seed is None
    assert definition.model_copy(update={"train_overrides": {"seed": 1}}).fixed_seed == "seed"


def test_an_entry_point_that_was_made_of_fields_is_known() -> None:
    made = EntryPoint(path="metta.sweep.function.FunctionSweep", args={"sweep": "{}", "sweep_name": "s"})
    assert built_from_fields(made)
    assert not built_from_fields(EntryPoint(path="experiments.sweep_digits.sweep", args={"sweep_name": "s"}))

"""Rejects environments that JSON does not preserve."""

from __future__ import annotations

from typing import Annotated

from mettagrid.config.mettagrid_config import MettaGridConfig
from pydantic import AfterValidator

from metta.common.errors import UserError


def check_round_trip(env: MettaGridConfig) -> MettaGridConfig:
    """Return `env` if its JSON reads back as an equal environment.

    Workers and checkpoints get an environment as JSON. In mettagrid 0.26 some configurations silently read back as
    different ones: ``inventoryReward(..., max=...)`` loses its maximum, and the same play then earns more.

    Raises:
        UserError: it cannot be read back, or it reads back differently; the message names the fields that differ.
    """
    try:
        read_back = type(env).model_validate_json(env.model_dump_json())
    except Exception as error:  # mettagrid's validators raise errors of many types
        raise UserError(
            f"environment {env.label!r} cannot be read back from JSON: {' '.join(str(error).split())}"
        ) from error
    if read_back != env:
        changed = ", ".join(_differences(env, read_back)) or "types that print the same"
        raise UserError(
            f"environment {env.label!r} does not survive JSON, so workers would play another game: {changed}"
        )
    return env


EnvironmentConfig = Annotated[MettaGridConfig, AfterValidator(check_round_trip)]
"""A mettagrid configuration that JSON preserves; as the type of a field, it rejects any other."""


def _differences(before: object, after: object, path: str = "") -> list[str]:
    """Paths of the innermost fields that differ, in the order of the fields."""
    if before == after:
        return []
    if type(before) is not type(after):
        return [f"{path} ({type(before).__name__} became {type(after).__name__})"]
    children: list[str] = []
    if hasattr(before, "__dict__") and hasattr(after, "__dict__"):
        before, after = vars(before), vars(after)
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            children += _differences(before[key], after.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            children += _differences(old, new, f"{path}.{index}")
    return children or [path]

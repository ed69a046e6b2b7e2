from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Annotated, Any, Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mettagrid.builder.envs import make_arena
from mettagrid.config.mettagrid_config import MettaGridConfig
from pydantic import BaseModel, Field, PrivateAttr, field_validator, model_validator

from metta.common.config import Config, ConfigError, Overrides, children, flatten, show_type, unflatten


class Range(Config):
    low: float = 0
    high: float = 1
    scale: float | Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class Foreign(BaseModel):
    """A model of another library: its fields may be changed without validation, and extra ones are ignored."""

    size: int = 1
    total: int = 0
    stats: dict[str, float] = {"ore.gained": 1, "ore": 2}

    @model_validator(mode="after")
    def _sum(self) -> Self:
        self.total = 10 * self.size
        return self


class Train(Config):
    seed: int | None = Field(default=None, ge=0)
    name: str = "x"
    names: list[str] = []
    range: Range = Range()
    ranges: list[Range] = [Range(), Range()]
    pair: tuple[int, int] = (1, 2)
    table: dict[str, dict[int, float]] = {"a": {1: 0.5}}
    maybe: Range | None = None
    foreign: Foreign = Foreign()
    waiting: Overrides = Overrides()
    anything: dict[str, Any] = {"nested": {"range": Range()}}
    _note: list[str] = PrivateAttr(default_factory=list)

    @field_validator("name")
    @classmethod
    def _no_blanks(cls, name: str) -> str:
        if " " in name:
            raise ValueError("blanks are not possible")
        return name


def read(config: Any, path: str) -> Any:
    for key in path.split("."):
        config = (children(config) or {})[key]
    return config


values = st.one_of(
    st.tuples(st.just("seed"), st.none() | st.integers(min_value=0)),
    st.tuples(st.just("name"), st.text().filter(lambda text: " " not in text)),
    st.tuples(st.just("names"), st.lists(st.text())),
    st.tuples(st.just("range.low"), st.floats(max_value=0.5, allow_nan=False)),
    st.tuples(st.just("range.scale"), st.just("auto") | st.floats(allow_nan=False)),
    st.tuples(st.just("ranges.1.high"), st.floats(min_value=0.5, allow_nan=False)),
    st.tuples(st.just("pair.0"), st.integers()),
    st.tuples(st.just("table.a.1"), st.floats(allow_nan=False)),
    st.tuples(st.just("foreign.size"), st.integers()),
    st.tuples(st.just("anything.nested.range.high"), st.floats(min_value=0.5, allow_nan=False)),
)
refused = st.sampled_from(
    [
        ("seed", -1),
        ("seed", "many"),
        ("name", "a b"),
        ("names", [1]),
        ("range.low", 1.0),
        ("range", {"low": 3}),
        ("range.scale", "wide"),
        ("ranges.0.low", 2),
        ("ranges.2.low", 0),
        ("pair.0", "x"),
        ("table.a.1", "x"),
        ("table.a.2", 1.0),
        ("maybe.low", 0),
        ("foreign.size", 1.5),
        ("foreign.extra", 1),
        ("anything.nested.range.low", "x"),
        ("learning_rate", 1),
        ("seed.x", 1),
        ("range.low.", 1),
        ("", 1),
        ("range..low", 1),
    ]
)


@given(values)
def test_override_then_read_gives_the_value(change: tuple[str, Any]) -> None:
    path, value = change
    config = Train()
    assert config.override(path, value) is config
    assert read(config, path) == value


@given(st.lists(values), refused)
def test_a_refused_value_leaves_everything_as_it_was(good: list[tuple[str, Any]], bad: tuple[str, Any]) -> None:
    config, before = Train(), Train()
    with pytest.raises(ConfigError):
        config.update(dict([*good, bad]))
    assert config == before
    assert config.model_fields_set == before.model_fields_set


@given(st.dictionaries(st.sampled_from(["low", "high"]), st.integers(-5, 5)), st.randoms())
def test_the_order_of_an_update_does_not_matter(new: dict[str, int], random: Any) -> None:
    shuffled = list(new.items())
    random.shuffle(shuffled)
    valid = new.get("low", 0) < new.get("high", 1)
    config = Train()
    if valid:
        config.update({f"range.{name}": value for name, value in shuffled})
        assert (config.range.low, config.range.high) == (new.get("low", 0), new.get("high", 1))
    else:
        with pytest.raises(ConfigError, match="must be below"):
            config.update({f"range.{name}": value for name, value in shuffled})


def test_values_that_bind_each_other_move_together_at_every_level() -> None:
    changes = {"range.low": 10, "range.high": 20, "ranges.1.high": -1, "ranges.1.low": -2, "seed": 3}
    dumps = [Train().update(dict(order)).model_dump() for order in permutations(changes.items())]
    assert all(dump == dumps[0] for dump in dumps)
    assert (dumps[0]["range"]["low"], dumps[0]["ranges"][1]["high"], dumps[0]["seed"]) == (10, -1, 3)


def test_values_become_the_fields_own_type() -> None:
    config = Train().update({"seed": "7", "range.low": -1, "maybe": {"high": 4}, "table.a.1": "2"})
    assert config.seed == 7
    assert isinstance(config.range.low, float)
    assert config.maybe == Range(high=4)
    assert config.table == {"a": {1: 2.0}}


def test_validators_of_other_libraries_run_too() -> None:
    assert Train().override("foreign.size", 4).foreign.total == 40


def test_dict_keys_may_hold_dots() -> None:
    config = Train().update({"foreign.stats.ore.gained": 5, "foreign.stats.ore": 6})
    assert config.foreign.stats == {"ore.gained": 5, "ore": 6}


def test_defaults_are_not_shared_between_instances() -> None:
    Train().update({"ranges.0.high": 9, "table.a.1": 9, "foreign.stats.ore": 9, "anything.nested.range.high": 9})
    assert Train().ranges[0].high == Train().anything["nested"]["range"].high == 1
    assert (Train().table, Train().foreign.stats["ore"]) == ({"a": {1: 0.5}}, 2)


def test_only_what_was_set_counts_as_set_and_private_attributes_stay() -> None:
    config = Train()
    config._note.append("kept")
    config.update({"range.high": 3, "seed": 1})
    assert config._note == ["kept"]
    assert config.model_fields_set == {"range", "seed"}
    assert config.range.model_fields_set == {"high"}


def test_private_attributes_below_stay() -> None:
    class Holder(Config):
        train: Train = Train()

    holder = Holder()
    holder.train._note.append("kept")
    assert holder.override("train.seed", 1).train._note == ["kept"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("rnge.low", 1, "rnge.low: Train has no 'rnge'; did you mean 'range' or 'ranges' or 'name'? valid: seed, "),
        ("range.lo", 1, "range.lo: range has no 'lo'; did you mean 'low'? valid: low, high, scale"),
        ("ranges.7.low", 1, "ranges.7.low: ranges has no '7'; valid: 0, 1"),
        ("table.b", {}, "table.b: table has no 'b'; valid: a"),
        ("maybe.low", 1, "maybe.low: maybe is null and has no fields; set maybe as a whole"),
        ("name.first", 1, "name.first: name is of type str, which has no fields"),
        ("seed", "abc", "seed: 'abc' (str) does not fit int | None: must be a valid integer"),
        ("seed", -3, "seed: -3 (int) does not fit int | None: must be at least 0"),
        ("seed", True, "seed: True (bool) does not fit int | None: a number is expected, not true"),
        (
            "range.scale",
            False,
            "range.scale: False (bool) does not fit float | Literal['auto']: a number is expected, ",
        ),
        ("range.scale", "a", "range.scale: 'a' (str) does not fit float | Literal['auto']: "),
        ("ranges.0.low", 5, "ranges.0.low=5: low (5) must be below high (1)"),
        ("names", ["a", 2], "names.1: 2 (int) does not fit: must be a valid string"),
        ("maybe", {"lw": 2}, "maybe.lw: there is no such setting; did you mean 'low'? valid: low, high, scale"),
    ],
)
def test_errors_say_where_what_and_what_is_expected(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Train().override(path, value)
    error = str(caught.value)
    assert message in error
    assert len(error.splitlines()) <= 2


def test_errors_name_the_overrides_that_were_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Train().update({"seed": "abc", "name": 5, "range.low": -1})
    assert caught.value.paths == ("seed", "name")


def test_a_part_and_its_whole_cannot_both_be_given() -> None:
    with pytest.raises(ConfigError, match=r"^range and range\.low, which is part of it, are both given"):
        Train().update({"range": {"low": -1}, "range.low": -2})


def test_overrides_take_new_paths_and_are_flat() -> None:
    config = Train().update({"waiting.trainer.seed": 1, "waiting.trainer.ppo": {"gamma": 0.9}})
    assert config.waiting.root == {"trainer.seed": 1, "trainer.ppo.gamma": 0.9}
    config.override("waiting.trainer.seed", 2)
    assert config.waiting.root["trainer.seed"] == 2
    with pytest.raises(ConfigError, match="both given"):
        config.override("waiting.trainer", 3)


def test_mettagrid_configurations() -> None:
    class Arena(Config):
        env: MettaGridConfig

    arena, untouched = Arena(env=make_arena(num_agents=4)), make_arena(num_agents=4)
    arena.update(
        {
            "env.game.max_steps": 100,
            "env.game.objects.wall.vibe": 3,
            "env.game.agent.inventory.limits.heart.base": 7,
            "env.game.map_builder.width": 30,
            "env.game.resource_names.0": "ruby",
        }
    )
    game = arena.env.game
    assert (game.max_steps, game.objects["wall"].vibe, game.resource_names[0]) == (100, 3, "ruby")
    assert type(game.map_builder) is type(untouched.game.map_builder)
    assert game.agent.inventory.limits["heart"].base == 7
    game.max_steps = untouched.game.max_steps
    arena.update(
        {
            "env.game.objects.wall.vibe": 0,
            "env.game.agent.inventory.limits.heart.base": 255,
            "env.game.map_builder.width": 25,
            "env.game.resource_names.0": "ore_red",
        }
    )
    assert arena.env == untouched
    for path, value in [
        ("env.game.objects.altar.vibe", 1),
        ("env.game.agent.rewards.ore", 1),
        ("env.game.num_agents", 0),
        ("env.game.agent.blocks_vision", True),
    ]:
        with pytest.raises(ConfigError):
            arena.override(path, value)
    assert arena.env == untouched


keys = st.text(st.characters(exclude_characters="."), max_size=3)
leaves = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
trees = st.dictionaries(
    keys, st.recursive(leaves, lambda below: st.dictionaries(keys, below, min_size=1, max_size=3)), max_size=4
)


@given(trees)
def test_unflatten_undoes_flatten(nested: dict[str, Any]) -> None:
    flat = flatten(nested)
    assert unflatten(flat) == nested
    assert flatten(unflatten(flat)) == flat


def test_paths_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="both given"):
        unflatten({"a.b.c": 1, "a.b": 2})
    with pytest.raises(ConfigError, match=r"a\.b is given twice"):
        flatten({"a": {"b": 1}, "a.b": 2})


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (float | None, "float | None"),
        (dict[str, list[Range | int]], "dict[str, list[Range | int]]"),
        (Literal["a.b", 1], "Literal['a.b', 1]"),
        (Annotated[int, Field(ge=0)], "int"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Callable[[str], Config], "Callable[[str], Config]"),
        (Any, "Any"),
    ],
)
def test_types_are_shown_as_one_would_write_them(annotation: Any, text: str) -> None:
    assert show_type(annotation) == text

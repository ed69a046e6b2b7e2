"""The runner in this process, on modules written for the purpose; tests/test_run.py starts it as a user does."""

from __future__ import annotations

import importlib
import json
import logging
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from metta.common.distribution import runner
from metta.common.entry_point import EntryPoint, load_target, parameters
from metta.common.runner import main

SHOP = '''
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, SkipValidation, model_validator

from metta.common.config import Config, Overrides
from metta.common.tool import Tool

if TYPE_CHECKING:
    from nowhere import Shop

PRICE = 3


class Range(Config):
    low: float = 0
    high: float = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class Big(Config):
    stock: dict[str, int] = {f"item{number}": number for number in range(50)}
    open: bool = True


class ShopTool(Tool):
    """Sells."""

    name: str
    count: int = Field(default=1, ge=0)
    alias: str | None = None
    tags: list[str] = []
    prices: Range = Range()
    big: Big = Big()
    extra: Overrides = Overrides()
    factory: SkipValidation[Callable[[str], int]] = Field(default=len, exclude=True)

    def invoke(self) -> int:
        print(f"sold {self.count} {self.name!r} {self.alias!r} {self.tags} {self.prices.low:g}..{self.prices.high:g}")
        return 7


def shop(name: str, count: int = 2, rate: float = 0.5, low: float = 0, mode: Literal["a", "b"] = "a") -> Shop:
    """Open a shop.

    Args:
        name: over the door.
    """
    return ShopTool(name=name, count=count, prices=Range(low=low))


def positional(name: str, /, *, count: int = 1) -> Shop:
    return ShopTool(name=name, count=count)


def not_a_tool() -> int:
    return 3


def broken() -> Shop:
    return ShopTool(name="x", count=1 // 0)


def interrupted() -> Shop:
    raise KeyboardInterrupt


def needs_package() -> Shop:
    import package_that_is_nowhere.part


def unmakable(thing: Unmakable) -> Shop:
    return ShopTool(name="x")


class Unmakable:
    pass
'''


def line_of(text: str) -> int:
    """The number of the line of the module that starts with `text`."""
    return next(number for number, line in enumerate(SHOP.splitlines(), 1) if line.strip().startswith(text))


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    """Undo what the runner does to logging."""
    handlers = list(logging.getLogger().handlers)
    yield
    logging.getLogger().handlers = handlers
    logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like a user's: a module, and a package with modules that fail."""
    (tmp_path / "shop.py").write_text(SHOP)
    package = tmp_path / "chain"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "north.py").write_text("from shop import shop as sell\nfrom shop import ShopTool as Renamed\n")
    (package / "lacking.py").write_text("import package_that_is_nowhere.part\n")
    (package / "misspelt.py").write_text("import chain.nroth\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("shop", "chain"):
            del sys.modules[name]


def run(command: str) -> int:
    return main(shlex.split(command))


def test_the_tool_runs_with_its_arguments_and_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("shop.shop --args name=corner count=1e1 --overrides prices.low=5 prices.high=6 'tags=[a, b]'") == 7
    assert capsys.readouterr() == ("sold 10 'corner' None ['a', 'b'] 5..6\n", "")
    assert run("shop.ShopTool --args name=corner 'prices={low: -1}'") == 7
    assert capsys.readouterr().out == "sold 1 'corner' None [] -1..1\n"
    assert run("chain.north.sell --args name=corner") == 7
    assert run("chain.north.Renamed --args name=corner") == 7
    assert run("shop.positional --args name=corner count=4") == 7
    assert capsys.readouterr().out.endswith("sold 4 'corner' None [] 0..1\n")


def test_text_stays_what_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("shop.shop --args name=2024 --overrides 'tags=[1, 2e3, no]' alias=007 count=5") == 7
    assert run("shop.shop --args name=null --overrides name=1e5 alias=null") == 7
    assert capsys.readouterr().out.splitlines() == [
        "sold 5 '2024' '007' ['1', '2e3', 'no'] 0..1",
        "sold 2 '1e5' None [] 0..1",
    ]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "MODULE.FUNCTION is missing"),
        ("shop", "'shop' is not MODULE.FUNCTION, such as"),
        ("shop..x", "'shop..x' is not MODULE.FUNCTION"),
        ("shp.shop", "there is no module 'shp'; did you mean 'shop'? valid: "),
        ("chain.noth.sell", "there is no module 'chain.noth'; did you mean 'north'? valid: lacking, misspelt, north"),
        ("shop.shp", "shop has no 'shp'; did you mean 'shop'"),
        ("shop.shop.x", "shop is a module; add one of its functions: ShopTool, shop, positional"),
        ("chain.north", "chain.north is a module; add one of its functions"),
        ("shop.PRICE", "shop.PRICE is neither a function nor a Tool"),
        ("shop.Range", "shop.Range is neither a function nor a Tool"),
        ("metta.common.tool.Tool", "metta.common.tool.Tool is neither a function nor a Tool"),
        ("shop.not_a_tool", "shop.not_a_tool returned int, not a Tool"),
        ("shop.shop", "shop.shop needs name (str)"),
        ("shop.shop --args nam=x", "shop.shop has no argument 'nam'; did you mean 'name'? valid: name, count, rate"),
        ("shop.shop --args name=x count=1.5", "count: 1.5 (float) does not fit int: must be a valid integer"),
        ("shop.shop --args name=x mode=c", "mode: 'c' (str) does not fit Literal['a', 'b']"),
        ("shop.shop --args name=x name=y", "name is given twice ('x' and 'y')"),
        (
            "shop.shop --args name=x low=3",
            f"shop.py:{line_of('return ShopTool(name=name, count=count, prices')}: Range: low (3) must be below",
        ),
        ("shop.ShopTool --args name=x count=-1", "count: -1 (int) does not fit int: must be at least"),
        ("shop.unmakable --args thing=1", "thing: a Unmakable cannot be given on the command line"),
        ("shop.shop --args name=x --overrides prices.lo=1", "prices.lo: prices has no 'lo'; did you mean 'low'?"),
        ("shop.shop --args name=x --overrides count=a name=1", "error: count: 'a' (str) does not fit int: "),
        ("shop.shop --args name=x --overrides count=1 count=2", "--overrides: count is given twice"),
        ("shop.shop --args name=x --overrides count", "--overrides: expected NAME=VALUE, got 'count'"),
        ("shop.shop --args name=x --overrides prices.low=2", "prices.low=2: low (2) must be below high (1)"),
        ("shop.shop --args name=x --dry-rum", "unrecognized arguments: --dry-rum"),
        ("shop.shop --args name=x --help prices.lo", "--help prices.lo: no 'lo'; did you mean 'low'?"),
        ("chain.lacking.x", "lacking.py:1 needs the package 'package_that_is_nowhere', which is not installed"),
        ("shop.needs_package", f"shop.py:{line_of('import package_that')} needs the package 'package_that_is_nowhere'"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) <= 2


def test_a_module_is_told_from_a_function_also_once_it_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    load_target("chain.north.sell")
    assert run("chain.north") == 2
    assert "chain.north is a module" in capsys.readouterr().err


def test_a_missing_package_of_ours_names_the_extra(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ['package-that-is-nowhere>=2; extra == "tested"'])
    monkeypatch.setenv("UV", "/bin/uv")
    assert run("chain.lacking.x") == 2
    assert "uv sync --extra tested" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "error"), [("shop.broken", ZeroDivisionError), ("chain.misspelt.x", ModuleNotFoundError)]
)
def test_bugs_keep_their_traceback(command: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(command)


def test_control_c_is_a_status() -> None:
    assert run("shop.interrupted") == 130


def test_a_dry_run_prints_all_that_a_run_would_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("shop.shop --args name=2024 --overrides prices.high=4 extra.a.b=1e-4 --dry-run") == 0
    out, _ = capsys.readouterr()
    assert out.startswith("# shop.ShopTool\n")
    assert yaml.safe_load(out) == {
        "name": "2024",
        "count": 2,
        "alias": None,
        "tags": [],
        "prices": {"low": 0.0, "high": 4.0},
        "big": {"stock": {f"item{number}": number for number in range(50)}, "open": True},
        "extra": {"a.b": 1e-4},
    }


def test_help_says_how_to_call_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "experiments.sweep_arena.sweep_optimizer --args sweep_name=my_arena_sweep" in capsys.readouterr().out


def rows(text: str) -> list[list[str]]:
    return [line.split(maxsplit=2) for line in text.splitlines()]


def test_help_lists_arguments_when_the_tool_cannot_be_made_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("shop.shop --help") == 0
    out = capsys.readouterr().out
    assert "Open a shop." in out
    assert ["name", "str", "(required)"] in rows(out)
    assert ["rate", "float", "0.5"] in rows(out)
    assert "--args name=... --help" in out
    assert "prices.low" not in out
    assert run("--help shop.shop") == 0
    assert capsys.readouterr().out == out


def test_help_lists_paths_with_types_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("shop.shop --args name=x --overrides prices.low=-3 --help") == 0
    table = rows(capsys.readouterr().out)
    assert ["prices.low", "float", "-3.0"] in table
    assert ["alias", "str | None", "null"] in [[row[0], *" ".join(row[1:]).rsplit(maxsplit=1)] for row in table if row]
    assert ["big.*", "Big", "51 paths: --help big"] in table
    assert not any(row and row[0] == "factory" for row in table)
    assert run("shop.shop --args name=x --help big") == 0
    table = rows(capsys.readouterr().out)
    assert ["big.open", "bool", "true"] in table
    assert ["big.stock.*", "dict", "50 paths: --help big.stock"] in table
    assert run("shop.shop --args name=x --help big.stock") == 0
    assert ["big.stock.item49", "int", "49"] in rows(capsys.readouterr().out)


def test_an_entry_point_rebuilds_the_tool_elsewhere() -> None:
    words = shlex.split("shop.shop --args 'name=2 words' count=3 --overrides prices.high=1e1 'tags=[1]'")
    entry_point = EntryPoint(
        path="shop.shop", args={"name": "2 words", "count": "3"}, overrides={"prices.high": "1e1", "tags": "[1]"}
    )
    tool = entry_point.build()
    assert tool._entry_point == entry_point
    assert "_entry_point" not in tool.model_dump()
    assert EntryPoint.model_validate(json.loads(entry_point.model_dump_json())).build() == tool
    assert shlex.split(entry_point.command()) == [*runner(), *words]
    assert tool.override("count", 4)._entry_point == entry_point


def test_parameters_need_no_return_type() -> None:
    taken = parameters(load_target("shop.shop"))
    assert list(taken) == ["name", "count", "rate", "low", "mode"]
    assert (taken["count"].annotation, taken["count"].default, taken["name"].required) == (int, 2, True)

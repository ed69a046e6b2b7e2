"""A command line as data: a function or Tool, its arguments, and overrides."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, TypeGuard, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from metta.common.command_line import readings, shell_line
from metta.common.config import Config, ConfigError, reasons, show_type
from metta.common.data_dir import store_in_command
from metta.common.distribution import program, runner
from metta.common.errors import UserError, nearest
from metta.common.tool import Tool

EXAMPLE = "experiments.sweep_arena.sweep_optimizer"

Target = Callable[..., Any]
"""A function that returns a Tool, or a Tool's class."""


class EntryPoint(Config):
    """A command line as data. Stored with a sweep, it builds the same Tool on another machine.

    Attributes:
        path: ``package.module.function``, or a Tool's class instead of the function.
        args: the function's arguments, as typed.
        overrides: values for fields of the Tool that it returns, by dotted path, as typed.
    """

    path: str
    args: dict[str, str] = {}
    overrides: dict[str, str] = {}

    def build(self) -> Tool:
        """Import the target, call it, and apply the overrides to the Tool that it returns.

        Raises:
            UserError: a path, an argument or an override does not exist or does not fit.
        """
        target = load_target(self.path)
        moved = target.moved if _is_tool(target) else {}
        arguments = _arguments(self.path, target, {name: t for name, t in self.args.items() if name not in moved})
        try:
            tool = target(*arguments.args, **arguments.kwargs)
        except ValidationError as error:
            where = self.path if inspect.isclass(target) else origin(error)
            raise UserError(f"{where}: {error.title}: {reasons(error.errors(include_url=False))}") from error
        except ConfigError as error:
            where = self.path if inspect.isclass(target) else origin(error)
            raise UserError(f"{where}: {error}") from error
        if not isinstance(tool, Tool):
            raise UserError(f"{self.path} returned {type(tool).__name__}, not a Tool")
        overrides = {**{name: text for name, text in self.args.items() if name in moved}, **self.overrides}
        override_by_text(tool, {tool.moved.get(path, path): text for path, text in overrides.items()})
        tool._entry_point = self
        return tool

    def command(self) -> str:
        """This entry point as a command line; ``$METTA_STORE`` replaces a store's URL that contains a secret."""
        words = [*runner(), self.path]
        for option, pairs in (("--args", self.args), ("--overrides", self.overrides)):
            words += [option, *(_argument(name, text) for name, text in pairs.items())] if pairs else []
        return shell_line(words)


def _argument(name: str, text: str) -> str:
    return f"{name}={(store_in_command(text) or text) if name == 'store' else text}"


def installed_command(*words: str) -> str:
    """The command line of a program of this package, for this installation."""
    return shell_line([*program(words[0]), *words[1:]])


def metta_sweep_command(store_url: str, *words: str) -> str:
    """A command of metta-sweep on a store, without secrets."""
    store = store_in_command(store_url)
    return installed_command("metta-sweep", *words, *(["--store", store] if store else []))


@dataclass(frozen=True)
class Parameter:
    """One argument of a target: its type, and its default (`inspect.Parameter.empty` if it has none)."""

    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def load_target(path: str) -> Target:
    """Import the function or Tool at `path`.

    Raises:
        UserError: the module or function does not exist (with the nearest names), or is neither a function nor a Tool.
    """
    *package, name = path.split(".")
    if not package or not all(part.isidentifier() for part in [*package, name]):
        raise UserError(f"{path!r} is not MODULE.FUNCTION, such as {EXAMPLE}")
    module = _import_module(package)
    target = vars(module).get(name)
    if inspect.isfunction(target) or _is_tool(target):
        return target
    if hasattr(module, "__path__") and importlib.util.find_spec(path):
        functions = _public_names(importlib.import_module(path))
        raise UserError(f"{path} is a module; add one of its functions: {', '.join(functions)}")
    problem = (
        f"{path} is neither a function nor a Tool" if name in vars(module) else f"{module.__name__} has no {name!r}"
    )
    raise UserError(f"{problem}; {nearest(name, _public_names(module))}")


def parameters(target: Target) -> dict[str, Parameter]:
    """The arguments of `target`, by name."""
    if _is_tool(target):
        return {name: Parameter(_annotation(field), _default(field)) for name, field in target.model_fields.items()}
    named = {
        name: parameter
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    # Parameters only, because a return type is often imported under TYPE_CHECKING alone.
    annotations = {
        name: Any if parameter.annotation is parameter.empty else parameter.annotation
        for name, parameter in named.items()
    }
    names = inspect.unwrap(target).__globals__
    types = get_type_hints(SimpleNamespace(__annotations__=annotations), globalns=names, include_extras=True)
    return {name: Parameter(types[name], parameter.default) for name, parameter in named.items()}


def origin(error: BaseException) -> str:
    """The file and line, outside pydantic and the import system, that `error` comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    passed_over = ("pydantic", "<", inspect.getfile(Config))
    written = [frame for frame in frames if not any(part in frame.filename for part in passed_over)]
    return f"{os.path.relpath(written[-1].filename)}:{written[-1].lineno}" if written else "the command"


def _import_module(parts: list[str]) -> ModuleType:
    """Import a module. One that does not exist is a UserError; an error within a module is raised unchanged."""
    folders = [str(Path.cwd()), str(Path(__file__).parents[2])]
    for end, part in enumerate(parts, start=1):
        name = ".".join(parts[:end])
        if importlib.util.find_spec(name) is None:
            siblings = sorted({module.name for module in pkgutil.iter_modules(folders)})
            raise UserError(f"there is no module {name!r}; {nearest(part, siblings)}")
        module = importlib.import_module(name)
        folders = list(getattr(module, "__path__", []))
        if not folders and end < len(parts):
            raise UserError(f"{name} is a module; add one of its functions: {', '.join(_public_names(module))}")
    return module


def _public_names(module: ModuleType) -> list[str]:
    """The functions and Tools that `module` defines, and its submodules."""
    defined = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
        and (inspect.isfunction(value) or _is_tool(value))
    ]
    return defined + [submodule.name for submodule in pkgutil.iter_modules(getattr(module, "__path__", []))]


def _is_tool(value: object) -> TypeGuard[type[Tool]]:
    return inspect.isclass(value) and issubclass(value, Tool) and not inspect.isabstract(value)


def _annotation(field: FieldInfo) -> Any:
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _default(field: FieldInfo) -> Any:
    return inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)


def _arguments(path: str, target: Target, texts: Mapping[str, str]) -> inspect.BoundArguments:
    taken = parameters(target)
    for name in texts:
        if name not in taken:
            raise UserError(f"--args: {path} has no argument {name!r}; {nearest(name, taken)}")
    missing = [name for name, parameter in taken.items() if parameter.required and name not in texts]
    if missing:
        types = ", ".join(f"{name} ({show_type(taken[name].annotation)})" for name in missing)
        example = " ".join(f"{name}=..." for name in missing)
        raise UserError(f"{path} needs {types}\ngive it with --args {example}")
    values = {name: _read(f"--args {name}", text, taken[name].annotation) for name, text in texts.items()}
    bound = inspect.signature(target).bind_partial()
    bound.arguments.update({name: values[name] for name in taken if name in values})
    return bound


def _read(name: str, text: str, annotation: Any) -> Any:
    """Read `text` as `annotation`, and as plain text only if nothing else fits."""
    expected = show_type(annotation)
    try:
        adapter = TypeAdapter(annotation)
    except PydanticSchemaGenerationError:
        raise UserError(f"{name}: a {expected} cannot be given on the command line") from None
    refusals = []
    for value in readings(text):
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            refusals.append(
                f"{name}: {value!r} ({type(value).__name__}) does not fit {expected}: {reasons(error.errors())}"
            )
    raise UserError(refusals[0])


def override_by_text(tool: Tool, texts: Mapping[str, str]) -> None:
    """Set `texts` on `tool`. If a field refuses a value, its next reading is tried; the last one is plain text."""
    ways = {path: readings(text) for path, text in texts.items()}
    chosen = dict.fromkeys(texts, 0)
    while True:
        try:
            tool.update({path: ways[path][chosen[path]] for path in texts})
            return
        except ConfigError as error:
            refused = set(error.paths)
            if not any(chosen[path] + 1 < len(ways[path]) for path in refused):
                break
            for path in refused:
                chosen[path] = min(chosen[path] + 1, len(ways[path]) - 1)
    tool.update({path: ways[path][0 if path in refused else chosen[path]] for path in texts})

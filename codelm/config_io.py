"""Configs in and out: Python files, JSON, and dotted overrides from the command line."""

import dataclasses
import importlib.util
import json
import re
import sys
import traceback
import typing
from pathlib import Path
from typing import Any

from codelm.config import Config, checked, describe_type, field_types
from codelm.errors import UserError, nearest

JSON_VERSION = 1


def load(path: str | Path) -> Config:
    """The config of a Python file (its `config()`) or of a JSON file; not resolved: overrides may move the dial."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no config at {path}{_near_file(path)}")
    if path.suffix not in (".py", ".json"):
        raise UserError(f"{path} is neither a Python file nor a JSON file; a config is one of them")
    config = from_python(path, "config", Config) if path.suffix == ".py" else from_json(path.read_text())
    return checked(config, "", Config)


def from_python[Returned](path: Path, function: str, kind: type[Returned]) -> Returned:
    """What a function of a Python file returns; a mistake in the file is told in one line with its place."""
    spec = importlib.util.spec_from_file_location(f"codelm_{function}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, function, None)):
            raise UserError(f"{path} does not define `def {function}() -> {kind.__name__}`")
        returned = getattr(module, function)()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{_where(error, path)}: {_explain(error)}") from error
    if not isinstance(returned, kind):
        wanted = f"{kind.__module__}.{kind.__name__}"
        raise UserError(f"{path}: {function}() returned {type(returned).__name__}, not {wanted}")
    return returned


def _near_file(path: Path) -> str:
    """A hint at the config the user may have meant: in the same folder, or among the shipped ones."""
    folders = [path.parent, Path("configs"), Path(__file__).parent.parent / "configs"]
    shipped = [
        str(file) for folder in folders if folder.is_dir() for file in folder.glob("*.py") if file.stem != "__init__"
    ]
    by_name = {Path(file).name: file for file in reversed(shipped)}
    return f"; nearest: {by_name[nearest(path.name, list(by_name))]}" if by_name else ""


def _where(error: Exception, path: Path) -> str:
    """file:line of the config that raised, whatever library the error came through."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _explain(error: Exception) -> str:
    """One line for an error raised by a config file; a wrong field name gets the nearest valid one."""
    unknown = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if unknown and (cls := _config_class(unknown[1])):
        return unknown_field(unknown[2], list(field_types(cls)), unknown[1])
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")


def _config_class(name: str) -> type | None:
    modules = [sys.modules[f"codelm.{module}"] for module in ("config", "corpus_config", "data_config", "train_config")]
    cls = next((getattr(module, name) for module in modules if hasattr(module, name)), None)
    return cls if dataclasses.is_dataclass(cls) and isinstance(cls, type) else None


def unknown_field(name: str, valid: list[str], where: str) -> str:
    return f"{where} has no field '{name}'; nearest: '{nearest(name, valid)}'"


def to_dict(config: Config) -> dict[str, Any]:
    return {"codelm_config": JSON_VERSION, **dataclasses.asdict(config)}


def to_json(config: Config) -> str:
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """The inverse of `to_json`: strict about version, names and types."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"config is not JSON: {error}") from error
    if not isinstance(content, dict) or "codelm_config" not in content:
        raise UserError('config JSON has no "codelm_config" version; was it written by `codelm config show --json`?')
    version = content.pop("codelm_config")
    content.pop("derived", None)  # figures that `codelm config show --json` adds
    if version != JSON_VERSION:
        raise UserError(f"config JSON has version {version!r}; this codelm reads version {JSON_VERSION}")
    return from_dict(Config, content, "")


def from_dict(cls: type, content: Any, path: str) -> Any:
    """A config dataclass from its fields; `path` is where it stands, for errors."""
    if not isinstance(content, dict):
        raise UserError(f"{path} takes {describe_type(cls)}, not {content!r}")
    fields = field_types(cls)
    for name in content:
        if name not in fields:
            raise UserError(unknown_field(name, list(fields), path or "config"))
    values = {}
    for name, value in content.items():
        kind, below = fields[name], f"{path}.{name}".lstrip(".")
        if dataclasses.is_dataclass(kind):
            value = from_dict(typing.cast(type, kind), value, below)
        elif typing.get_origin(kind) is tuple and isinstance(value, list):
            of = typing.get_args(kind)[0]
            nested = dataclasses.is_dataclass(of)
            value = tuple(from_dict(of, item, f"{below}.{n}") if nested else item for n, item in enumerate(value))
        values[name] = value
    return cls(**values)

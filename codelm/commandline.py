"""Options from dataclasses, through tyro, with every mistake told in one line."""

import contextlib
import dataclasses
import io
import os
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import tyro

from codelm import config_io
from codelm.config import Config
from codelm.errors import UserError, nearest

# The type of a verb's config field: its dotted fields are options of the verb itself (`--model.depth 8`), and a
# boolean takes its value (`--model.tied_embeddings False`), so that sweeps can write every override alike.
ConfigOption = Annotated[tyro.conf.FlagConversionOff[Config], tyro.conf.arg(name="")]


def parse[Options](options: type[Options], argv: Sequence[str], prog: str, default: Options | None = None) -> Options:
    """The options, or a UserError of one line naming the nearest valid option."""
    stderr = io.StringIO()
    asked_help = bool({"-h", "--help"} & set(argv))
    given: Any = {"use_underscores": True} | ({} if default is None else {"default": default})
    try:
        with contextlib.redirect_stderr(stderr), contextlib.nullcontext() if asked_help else _wide_terminal():
            value, unknown = tyro.cli(options, prog=prog, args=list(argv), return_unknown_args=True, **given)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_first_sentence(stderr.getvalue())}. See {prog} --help") from None
    if unknown:
        raise UserError(_unknown_option(unknown[0], option_names(options), prog))
    return value


def parse_with_config[Options](options: Callable[..., Options], argv: Sequence[str], prog: str) -> Options:
    """Options of a verb whose first argument is a config file and whose `config` field is that config, overridden."""
    kind = typing.cast(type[Options], options)
    if argv and not argv[0].startswith("-"):
        config = config_io.load(argv[0])
        return parse(kind, argv[1:], f"{prog} {argv[0]}", default=options(config=config))
    if {"-h", "--help"} & set(argv):
        return parse(kind, argv, f"{prog} CONFIG", default=options(config=Config()))
    raise UserError(f"which config? {prog} CONFIG [--dotted.overrides …], for example {prog} configs/quickstart.py")


def option_names(options: type, prefix: str = "") -> list[str]:
    """Every option of a dataclass of options, nested fields by their dotted path."""
    names: list[str] = []
    hints = typing.get_type_hints(options, include_extras=True)
    for option in dataclasses.fields(options):
        kind = hints[option.name]
        bare = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
        if dataclasses.is_dataclass(bare):
            below = prefix if bare is Config else f"{prefix}{option.name}."
            names += option_names(typing.cast(type, bare), below)
        else:
            names.append(prefix + option.name)
    return names


def _unknown_option(given: str, valid: list[str], prog: str) -> str:
    if not given.startswith("-"):
        return f"unexpected argument '{given}'. See {prog} --help"
    name = given.lstrip("-").split("=")[0].replace("-", "_")
    return f"no option '{given.split('=')[0]}'; nearest: '--{nearest(name, valid)}'. See {prog} --help"


def _first_sentence(box: str) -> str:
    """What tyro says, without the box it draws around it."""
    lines = [re.sub(r"[╭╮╰╯│]", "", line).strip() for line in box.splitlines()[1:]]
    said = []
    for line in lines:
        if line.startswith("─"):
            break
        said.append(line)
    return " ".join(said).strip().rstrip(".")


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    """So that tyro does not break its one sentence over several lines."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "2000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before

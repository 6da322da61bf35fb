"""`codelm config show`: a config as it will run, and what it costs."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from codelm.arithmetic import count_parameters, kv_bytes_per_token, training_flops_per_token
from codelm.commandline import ConfigOption, parse_with_config
from codelm.config import Config, field_paths, fingerprint, lookup, mesh_shape, resolve
from codelm.config_io import to_dict


@dataclass(frozen=True)
class ShowOptions:
    """Print a config resolved: every field, and what the model costs. Any field can be set by its dotted path."""

    config: ConfigOption
    json: bool = False
    """Print JSON, which is itself a config file."""
    devices: int = 0
    """Check the mesh against this many devices and print its axis sizes; 0 = leave it open."""


def show(argv: list[str], prog: str) -> None:
    options = parse_with_config(ShowOptions, argv, prog)
    config = resolve(options.config)
    if options.devices:
        config = dataclasses.replace(config, mesh=type(config.mesh)(**mesh_shape(config, options.devices)))
    if options.json:
        print(json.dumps(to_dict(config) | {"derived": derived(config)}, indent=2))
    else:
        _print_table(options.config, config)


def derived(config: Config) -> dict[str, Any]:
    """The figures that follow from a resolved config."""
    parameters = count_parameters(config.model)
    return {
        "fingerprint": fingerprint(config),
        "parameters": dataclasses.asdict(parameters),
        "training_flops_per_token": training_flops_per_token(config.model, config.data.seq_len),
        "kv_bytes_per_token": kv_bytes_per_token(config.model, config.model.compute_dtype),
        "tokens_per_step": config.data.batch_size * config.data.seq_len,
    }


def _print_table(given: Config, config: Config) -> None:
    """Every field by its dotted path; the ones the dial set are marked."""
    for path in field_paths(Config):
        value = lookup(config, path)
        from_dial = path.startswith(("model.", "train.")) and value != lookup(given, path)
        print(f"{path:28} {value!r}{'   (from the dial)' if from_dial else ''}")
    figures = derived(config)
    parameters = count_parameters(config.model)
    experts = f", {_short(parameters.active)} active" if parameters.active != parameters.total else ""
    print(f"\n{'parameters':28} {_short(parameters.total)}{experts}, {_short(parameters.embedding)} in the embedding")
    print(
        f"{'training FLOPs/token':28} {figures['training_flops_per_token']:.4g} at {config.data.seq_len} tokens a row"
    )
    print(f"{'KV cache bytes/token':28} {figures['kv_bytes_per_token']:,} in {config.model.compute_dtype}")
    tokens = figures["tokens_per_step"]
    print(f"{'tokens/step':28} {tokens:,}; {_short(config.train.steps * tokens)} in all")
    print(f"{'fingerprint':28} {figures['fingerprint']}")


def _short(count: int) -> str:
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)

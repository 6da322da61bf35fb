"""Impossible corpora, batches and training, each refused with one line that names the fields and what to change."""

import dataclasses
import math
from typing import Any

from codelm import languages
from codelm.corpus_config import CorpusConfig
from codelm.data_config import DataConfig, SourceConfig
from codelm.errors import UserError, nearest


def require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def lookup(config: Any, path: str) -> Any:
    """The value at a dotted path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def validate_corpus(corpus: CorpusConfig) -> None:
    require(len(corpus.sources) > 0, "corpus.sources is empty: name at least one, for example stdlib")
    for path in ("validation", "quality.min_alphabetic", "quality.max_repeated_lines"):
        share = lookup(corpus, path)
        require(0 <= share <= 1, f"corpus.{path} must be between 0 and 1, not {share}")
    require(0 < corpus.dedup.threshold <= 1, f"corpus.dedup.threshold must be in (0, 1], not {corpus.dedup.threshold}")
    for path in ("dedup.permutations", "dedup.shingle", "quality.max_bytes"):
        require(lookup(corpus, path) >= 1, f"corpus.{path} must be at least 1, not {lookup(corpus, path)}")
    _validate_languages("corpus.languages", corpus.languages)


def _validate_languages(path: str, names: tuple[str, ...]) -> None:
    for name in names:
        near = nearest(name, sorted(languages.LANGUAGES))
        require(name in languages.LANGUAGES, f"{path} has no language '{name}'; nearest: '{near}'")


def validate_data(data: DataConfig) -> None:
    for path in ("fim.rate", "fim.spm", "fim.empty", "metadata"):
        share = lookup(data, path)
        require(0 <= share <= 1, f"data.{path} must be between 0 and 1, not {share}")
    spans = dataclasses.asdict(data.fim.spans)
    for name, share in spans.items():
        require(0 <= share < math.inf, f"data.fim.spans.{name} must be a share of at least 0, not {share}")
    require(data.fim.rate == 0 or sum(spans.values()) > 0, "data.fim.spans are all 0: give one a share, or fim.rate 0")
    for path in ("fim.causal_context", "long_tokens"):
        require(lookup(data, path) >= 0, f"data.{path} must be at least 0, not {lookup(data, path)}")
    for path in ("temperature", "long_weight"):
        require(0 < lookup(data, path) < math.inf, f"data.{path} must be a positive number, not {lookup(data, path)}")
    require(data.long_weight == 1 or data.long_tokens > 0, "data.long_weight needs data.long_tokens: what long means")
    steps = list(data.boundaries)
    require(
        steps == sorted(set(steps)) and (not steps or steps[0] > 0),
        f"data.boundaries must be rising steps above 0, not {data.boundaries}",
    )
    require(len(data.sources) > 0, "data.sources is empty: name at least one")
    for n, source in enumerate(data.sources):
        _validate_source(f"data.sources.{n}", source, len(steps) + 1)
    for part in range(len(steps) + 1):
        require(
            any(source.weight[min(part, len(source.weight) - 1)] > 0 for source in data.sources),
            f"every weight in part {part} of the mixture is 0: give a source of data.sources a share",
        )


def _validate_source(path: str, source: SourceConfig, parts: int) -> None:
    require(
        len(source.weight) in (1, parts),
        f"{path}.weight has {len(source.weight)} values, but data.boundaries cuts the run into {parts}: give one for "
        "each part, or one for all",
    )
    for weight in source.weight:
        require(0 <= weight < math.inf, f"{path}.weight must be a share of at least 0, not {weight}")
    require(
        source.level != "chat" or not source.languages,
        f"{path}.languages are of code, and conversations have none: leave them out",
    )
    require(source.level != "chat" or source.corpus != "", f"{path}.level=chat needs {path}.corpus: a JSONL file")
    _validate_languages(f"{path}.languages", source.languages)


def validate_training(config: Any) -> None:
    """Of a whole config: training goes with its batches."""
    train, guard = config.train, config.train.guard
    least = {
        "train": ("steps", "accumulate", "guard.window", "guard.in_a_row"),
        "evaluation": ("batches", "infill_tokens"),
        "checkpoint": ("every", "keep_last"),
        "track": ("every",),
    }
    for group, names in least.items():
        for path in (f"{group}.{name}" for name in names):
            require(lookup(config, path) >= 1, f"{path} must be at least 1, not {lookup(config, path)}")
    natural = {
        "train": ("warmup_steps", "batch_warmup_steps", "weight_decay", "z_loss", "mtp_weight", "mup_base_width"),
        "train.guard": ("deviations", "most"),
        "midtrain": ("steps", "seq_len", "batch_size", "rope_theta", "learning_rate", "warmup_steps"),
        "evaluation": ("every", "infill_every", "infill_examples", "suites_every", "suites_tasks"),
        "checkpoint": ("keep_every",),
    }
    for group, names in natural.items():
        for path in (f"{group}.{name}" for name in names):
            value = lookup(config, path)
            require(0 <= value < math.inf, f"{path} must be at least 0, not {value}")
    for path in ("train.learning_rate", "train.grad_clip", "train.epsilon"):
        value = lookup(config, path)
        require(0 < value < math.inf, f"{path} must be a positive number, not {value}")
    for path in ("train.beta1", "train.beta2", "train.momentum"):
        require(0 <= lookup(config, path) < 1, f"{path} must be in [0, 1), not {lookup(config, path)}")
    for path in ("train.decay_fraction", "train.final_fraction"):
        require(0 <= lookup(config, path) <= 1, f"{path} must be in [0, 1], not {lookup(config, path)}")
    parts, rows = train.accumulate, config.data.batch_size
    require(rows % parts == 0, f"train.accumulate={parts} does not divide data.batch_size={rows}")
    require(
        train.batch_warmup_steps == 0 or parts > 1,
        "train.batch_warmup_steps grows the batch by parts: set train.accumulate to their number",
    )
    require(guard.in_a_row <= guard.most, f"train.guard.most={guard.most} is below train.guard.in_a_row")

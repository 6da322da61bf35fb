"""What a run came to: figures for comparing, and what the model writes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codelm import formats
from codelm.arithmetic import count_parameters, training_flops_per_token
from codelm.config import Config, fingerprint
from codelm.lm import LM, TEXT_ENDS
from codelm.model import Transformer
from codelm.publish import write_atomically
from codelm.tokenizer import Tokenizer
from experiments import by_position, records
from train import schedules
from train.clock import Clock
from train.infilling import Filled
from train.records import METRICS, read
from train.trainer import Job

VERSION = 1
SAMPLES = "samples.json"
PROMPTS = ("def __init__(self, ", "import ", "    for ")
HOLE = ("def mean(values):\n    total = ", "\n    return total / len(values)\n")


def current(run: Path, config: Config) -> bool:
    """Whether there is a result of this config."""
    return records.result(run).get("fingerprint") == fingerprint(config)


def write(
    run: Path,
    config: Config,
    told: Sequence[Job],
    found: Mapping[str, float],
    samples: Sequence[Mapping[str, Any]],
    clock: Clock,
) -> None:
    tokens = {job.stage: _tokens(job.config) for job in told}
    flops = [tokens[job.stage] * training_flops_per_token(job.config.model, job.config.data.seq_len) for job in told]
    lines = read(run / METRICS)
    losses = [line["loss"] for line in lines if line["stage"] == told[-1].stage and "loss" in line]
    result = {
        "codelm_result": VERSION,
        "name": config.name,
        "fingerprint": fingerprint(config),
        "parameters": count_parameters(config.model).total,
        "tokens": sum(tokens.values()),
        "flops": sum(flops),
        "train_loss": losses[-1] if losses else None,
        "held_out_loss": found["held_out/loss"],
        "held_out_bits_per_byte": found["held_out/bits_per_byte"],
        "unigram_loss": found["unigram_loss"],
        "infill_exact": found.get("infill/exact"),
        "infill_similarity": found.get("infill/similarity"),
        "seconds": round(sum(clock.spent().values()), 1),
        "by_position": by_position.measured(config, lines),
        "evaluation": dict(found),
    }
    write_atomically(run / SAMPLES, (json.dumps(samples, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(run / records.RESULT, (json.dumps(result, indent=2) + "\n").encode())


def _tokens(config: Config) -> int:
    """That a stage trains on; its batches may have grown."""
    parts, rows = schedules.parts_before(config.train, config.train.steps), config.data.batch_size
    return parts * (rows // config.train.accumulate) * config.data.seq_len


def samples(config: Config, model: Transformer, tokenizer: Tokenizer, filled: Sequence[Filled]) -> list[dict[str, Any]]:
    """What the model continues, and what it fills."""
    lm = LM(config.model, model, tokenizer, "codelm")

    def written(ids: list[int], tokens: int) -> str:
        """By `complete`, in which all processes of a run take part."""
        ends = {tokenizer.special[name] for name in TEXT_ENDS if name in tokenizer.special}
        return tokenizer.decode(lm.complete([ids], tokens, ends)[0])

    prompts = {prompt: tokenizer.encode_document(prompt) for prompt in PROMPTS}
    found: list[dict[str, Any]] = [{"prompt": text, "completion": written(ids, 24)} for text, ids in prompts.items()]
    family = formats.family(config.tokenizer.family)
    if family.fim:
        middle = written(formats.fim(family, tokenizer, *HOLE).ids, 12)
        found.append({"prefix": HOLE[0], "completion": middle, "suffix": HOLE[1]})
    return found + [dict(one.sample()) for one in filled]


def told(run: Path) -> str:
    """The result as a person reads it."""
    result = records.result(run)
    lines = [
        f"held-out loss {result['held_out_loss']:.2f} nats/token; unigram entropy {result['unigram_loss']:.2f} (what "
        "counting tokens gets)",
        f"held-out bits per byte {result['held_out_bits_per_byte']:.3f}",
    ]
    if positions := by_position.told(result.get("by_position", {})):
        lines.append(positions)
    if result["infill_exact"] is not None:
        exact, similar = result["infill_exact"], result["infill_similarity"]
        lines.append(f"infilling: {exact:.1%} exact, {similar:.2f} edit similarity")
    for sample in json.loads((run / SAMPLES).read_text()):
        if "prompt" in sample:
            lines.append(f"\n--- the model continues {sample['prompt']!r}\n{sample['prompt']}{sample['completion']}")
        elif "path" not in sample:
            prefix, middle, suffix = sample["prefix"], sample["completion"], sample["suffix"]
            lines.append(f"\n--- the model fills the hole in {prefix!r}…{suffix!r}\n{prefix}⟦{middle}⟧{suffix}")
    return "\n".join(lines)

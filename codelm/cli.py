"""The `codelm` command: a table of verbs, each imported only when it is called."""

import importlib
import os
import sys
from collections.abc import Sequence

from codelm import __version__, libtpu
from codelm.errors import UserError, nearest

# verb → (module:function, what it does). A function takes (argv, prog) and prints its result.
VERBS: dict[str, tuple[str, str]] = {
    "bench decode": (
        "experiments.bench.decode:decode",
        "tokens/s of prefill and decoding on a CPU, next to transformers and llama.cpp",
    ),
    "bench keystrokes": (
        "experiments.bench.keystrokes:keystrokes",
        "what a keystroke costs: a file's history typed again, with completions",
    ),
    "bench serving": (
        "experiments.bench.serving:serving",
        "throughput, stages, and completions beside a batch",
    ),
    "bench speculation": (
        "experiments.bench.speculation:speculation",
        "what drafts save: tokens for each pass, and time",
    ),
    "compare": ("experiments.compare:compare", "a table of runs with the fields that differ, and their curves"),
    "complete": ("infer.commands:complete", "write what belongs at the cursor of a file"),
    "config show": ("codelm.config_command:show", "print a config resolved: every field, parameters, FLOPs, KV bytes"),
    "data build": ("data.command:build", "make a clean, deduplicated corpus out of code"),
    "data report": ("data.command:report", "check a corpus and show what is in it and what was dropped, as a page"),
    "data show": ("data.show_command:show", "print a row of the training data as the model sees it"),
    "data stats": ("data.stats_command:stats", "padding, lengths, holes and dependencies of the training data"),
    "eval": ("experiments.evals.command:evaluate", "measure a model, here or behind a URL, by suites of tasks"),
    "eval build-suite": (
        "experiments.evals.build_suite_command:build_suite",
        "make a suite of holes out of a folder of repositories",
    ),
    "eval compare": (
        "experiments.evals.compare_command:compare",
        "whether one model is better than another: differences, p-values, the tasks that changed",
    ),
    "eval rescore": (
        "experiments.evals.rescore_command:rescore",
        "the scores of a measurement anew, from what the model wrote",
    ),
    "generate": ("infer.commands:generate", "write what follows a text"),
    "plan": ("train.plan_command:plan", "whether an experiment fits a TPU topology or GPUs, and how fast it can be"),
    "profile": (
        "experiments.profile_command:profile_steps",
        "where the time of a step goes: a table, and a trace",
    ),
    "quantize": (
        "experiments.quantize_command:quantize",
        "a model in 8 or 4 bits for serving, if it stays as good",
    ),
    "replay": ("experiments.replay_command:replay", "a step of a run once more: its loss, its rows, which is to blame"),
    "report": ("experiments.report_command:report", "make a run's page anew: curves, corpus, evaluations, samples"),
    "run": ("experiments.run_command:run", "run an experiment: corpus, tokenizer, training, evaluation, report"),
    "import": ("codelm.model_commands:import_", "make a checkpoint of a Hugging Face folder"),
    "export": ("codelm.model_commands:export", "make a Hugging Face folder of a run or checkpoint"),
    "lr-range": ("experiments.learning_rate_command:learning_rate_range", "find a learning rate by one short run"),
    "scaling": ("experiments.scaling_command:scaling_law", "fit a scaling law to the runs of a sweep, and plot it"),
    "sweep": ("experiments.sweep_command:sweep", "run the configs of a sweep, or print a command for each"),
    "tokenizer train": ("codelm.tokenizer_command:train", "train a tokenizer for code on files and folders"),
    "tokenizer inspect": ("codelm.tokenizer_command:inspect", "what a tokenizer holds, and bytes/token on real text"),
    "tokenizer extend": ("codelm.tokenizer_command:extend", "add pieces to a tokenizer"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Bad input is one line on stderr and exit code 2; Ctrl-C is 130."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        _dispatch(argv)
        sys.stdout.flush()
    except UserError as error:
        print(f"codelm: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("codelm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `codelm … | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _dispatch(argv: list[str]) -> None:
    words = argv[:2]
    if words[:1] == ["--version"]:
        print(f"codelm {__version__}")
        return
    groups = {verb.split()[0] for verb in VERBS}
    if not words or words[0] in ("-h", "--help"):
        print(_overview("", list(VERBS)))
        return
    if words[0] not in groups:
        raise UserError(f"no verb '{words[0]}'; nearest: '{nearest(words[0], sorted(groups))}'. See codelm --help")
    if words[0] in VERBS and (len(words) == 1 or " ".join(words) not in VERBS):
        _call(words[0], argv[1:])
        return
    in_group = [verb for verb in VERBS if verb.split()[0] == words[0]]
    if len(words) == 1 or words[1] in ("-h", "--help"):
        print(_overview(words[0], in_group))
        return
    verb = " ".join(words)
    if verb not in VERBS:
        close = nearest(words[1], [name.split()[1] for name in in_group])
        raise UserError(f"no verb '{verb}'; nearest: '{words[0]} {close}'. See codelm {words[0]} --help")
    _call(verb, argv[2:])


def _call(verb: str, argv: list[str]) -> None:
    if not libtpu.tpu_is_here():
        libtpu.leave_alone()
    module, function = VERBS[verb][0].split(":")
    getattr(importlib.import_module(module), function)(argv, f"codelm {verb}")


def _overview(group: str, verbs: list[str]) -> str:
    width = max(len(verb) for verb in verbs) + 2
    lines = [f"usage: codelm {group or 'VERB'} … [--help]", ""]
    if not group:
        lines[1:1] = ["", "Code language models in JAX, end to end."]
    lines += [f"  {verb:{width}}{VERBS[verb][1]}" for verb in verbs]
    lines += ["", "codelm VERB --help shows a verb's options."]
    return "\n".join(lines)

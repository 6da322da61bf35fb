"""A peer of `experiments.bench.decode`: transformers' own generation, on the CPU.

Run by that module, in an interpreter of its own, which needs neither jax nor codelm: reads a line of JSON with the
Hugging Face folder to load and answers with what it loaded; then continues a prompt for each line, and answers with
the tokens, the seconds to the first of them, and the seconds of the others.
"""

# pyrefly: ignore-errors
# torch and transformers are in no environment of this project.

import json
import sys
import time

import torch
import transformers
from transformers.generation.streamers import BaseStreamer


class Arrivals(BaseStreamer):
    """When the tokens came; the first thing that generation hands over is the prompt."""

    def __init__(self) -> None:
        self.times = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def main() -> None:
    options = json.loads(sys.stdin.readline())
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options["threads"])
    model = transformers.AutoModelForCausalLM.from_pretrained(options["folder"], dtype=torch.float32).eval()
    answer(
        torch=torch.__version__,
        transformers=transformers.__version__,
        torch_threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    for line in sys.stdin:
        question = json.loads(line)
        prompt, arrivals = torch.tensor([question["prompt"]]), Arrivals()
        before = time.perf_counter()
        ids = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=question["new_tokens"],
            do_sample=False,
            streamer=arrivals,
            **settings(question["cache"]),
        )
        _, first, *_, last = arrivals.times
        tokens = ids[0, prompt.shape[1] :].tolist()
        answer(tokens=tokens, prefill_seconds=first - before, decode_seconds=last - first)


def settings(cache: str) -> dict:
    """On a CPU, transformers compiles its step only when it is made to."""
    if cache != "compiled":
        return {"cache_implementation": cache}
    compilation = transformers.CompileConfig()
    compilation._compile_all_devices = True
    return {"cache_implementation": "static", "compile_config": compilation}


def answer(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()

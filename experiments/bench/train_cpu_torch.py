"""The peer of `experiments.bench.train_cpu`: the same training step in transformers and torch, on the CPU.

Run by that module, in an interpreter of its own, which needs neither jax nor codelm: reads a line of JSON with what to
build and answers with what it built; then does one step for each line, and answers with its seconds and its loss.
"""

# pyrefly: ignore-errors
# torch and transformers are in no environment of this project.

import json
import sys
import time

import numpy as np
import torch
import transformers


def main() -> None:
    options = json.loads(sys.stdin.readline())
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**options["model"]))
    training = torch.compile(model) if options["compile"] else model
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, **options["adamw"])
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(0, model.config.vocab_size, (options["batch_size"], options["seq_len"])))
    answer(
        torch=torch.__version__,
        transformers=transformers.__version__,
        threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    for _ in sys.stdin:
        before = time.perf_counter()
        loss = training(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options["grad_clip"])
        optimizer.step()
        optimizer.zero_grad()
        answer(loss=loss.item(), seconds=time.perf_counter() - before)


def answer(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()

"""A peer of `experiments.bench.decode`: llama.cpp, on the CPU.

Run by that module, in an interpreter of its own, which needs neither jax nor codelm: reads a line of JSON with the GGUF
file to load and answers with what it loaded; then continues a prompt for each line, and answers with the tokens, the
seconds to the first of them, and the seconds of the others. With `reuse` it keeps what the prompt begins with as the
text before did. It calls llama.cpp's C functions, none of the Python around them: a batch in, scores out, and NumPy
finds the highest.
"""

# pyrefly: ignore-errors
# llama_cpp is in no environment of this project.

import ctypes
import json
import sys
import time

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as c

ERROR = 4  # of ggml's log levels


def main() -> None:
    options = json.loads(sys.stdin.readline())
    c.llama_log_set(quiet, None)
    c.llama_backend_init()
    loading = c.llama_model_default_params()
    loading.n_gpu_layers = 0
    model = c.llama_model_load_from_file(options["file"].encode(), loading)
    context = c.llama_init_from_model(model, context_settings(options))
    vocab_size = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
    answer(
        llama_cpp_python=llama_cpp.__version__,
        llama_threads=c.llama_n_threads(context),
        parameters=c.llama_model_n_params(model),
    )

    def likeliest(ids: list[int]) -> int:
        """What follows the tokens before and these."""
        given = (c.llama_token * len(ids))(*ids)  # by name: the batch only points to it
        if failed := c.llama_decode(context, c.llama_batch_get_one(given, len(ids))):
            raise SystemExit(f"llama_decode failed with {failed}")
        scores = np.ctypeslib.as_array(c.llama_get_logits_ith(context, -1), (vocab_size,))
        return int(scores.argmax())

    held: list[int] = []  # what the context's keys and values are of
    for line in sys.stdin:
        question = json.loads(line)
        before = time.perf_counter()
        prompt = question["prompt"]
        kept = common(held, prompt[:-1]) if question.get("reuse") else 0
        c.llama_memory_seq_rm(c.llama_get_memory(context), 0, kept, -1)
        tokens = [likeliest(prompt[kept:])]
        first = time.perf_counter()
        while len(tokens) < question["new_tokens"]:
            tokens.append(likeliest(tokens[-1:]))
        held = prompt + tokens[:-1]
        answer(tokens=tokens, prefill_seconds=first - before, decode_seconds=time.perf_counter() - first)


def common(first: list[int], second: list[int]) -> int:
    """How many tokens both begin with, as its server finds out what it need not read again."""
    return next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))  # noqa: B905


def context_settings(options: dict) -> object:
    """Room for the text, the prompt in one batch, and attention as exact as the weights.

    Its flash attention decodes as fast, and moves scores by a hundredth of their spread: other tokens win.
    """
    settings = c.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = options["context"]
    settings.n_threads = settings.n_threads_batch = options["threads"]
    settings.type_k = settings.type_v = c.GGML_TYPE_F32
    settings.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return settings


@c.llama_log_callback
def quiet(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    if level == ERROR:
        print(text.decode(errors="replace"), end="", file=sys.stderr)


def answer(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()

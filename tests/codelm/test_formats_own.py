"""Our own prompt format with a tokenizer of our own: what the fakes of test_formats.py cannot show."""

from codelm import formats
from codelm.tokenizer import Tokenizer


def test_our_own_format_with_our_own_tokenizer(tokenizer: Tokenizer) -> None:
    """The document reads as documented when shown with its special tokens, and typed sentinels stay text."""
    typed = "<|fim_middle|>"
    rendered = formats.fim(formats.family("codelm"), tokenizer, f"def f({typed}", "\n    return x\n", "x):", mode="psm")
    shown = tokenizer.decode(rendered.ids, show_special=True)
    assert shown == f"<|fim_prefix|>def f({typed}<|fim_suffix|>\n    return x\n<|fim_middle|>x):<|endoftext|>"
    assert rendered.ids.count(tokenizer.special["<|fim_middle|>"]) == 1
    spm = formats.fim(formats.family("codelm"), tokenizer, "def f(", "\n    return x\n", mode="spm")
    shown = tokenizer.decode(spm.ids, show_special=True)
    assert shown == "<|fim_prefix|><|fim_suffix|>\n    return x\n<|fim_middle|>def f("
    assert tokenizer.special["<|endoftext|>"] in formats.stop_ids(formats.family("codelm"), tokenizer, "fim")

"""Text in, text out: prompts that fit, healing, lists, and the two commands as a person calls them."""

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest

from codelm import checkpoint, cli, formats
from codelm.config import ModelConfig, dial
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model import create
from codelm.model_commands import values
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer_training import train
from infer.commands import at_cursor
from infer.prompts import family_of, prompt_and_ends

LINES = (Path(__file__).read_text() + Path(formats.__file__).read_text()).splitlines(keepends=True)


@pytest.fixture(scope="module")
def lm() -> LM:
    tokenizer = from_proto(train(iter(LINES), 512))
    config = ModelConfig(depth=1, width=32, heads=2, head_dim=16, max_seq_len=128, compute_dtype="float32")
    config = dial(config, tokenizer.vocab_size)
    return LM(config, create(config, 0), tokenizer, "codelm")


@pytest.fixture(scope="module")
def folder(lm: LM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on disk."""
    at = tmp_path_factory.mktemp("made")
    (at / "tokenizer.model").write_bytes(train(iter(LINES), 512))
    checkpoint.save(at / "model", lm.config, "codelm", values(lm), at / "tokenizer.model")
    return at / "model"


def test_one_and_several_give_the_same(lm: LM) -> None:
    prompts = ["def f(", "import ", "class A:\n    def "]
    together = lm.generate(prompts, max_new_tokens=6)
    assert together == [lm.generate(prompt, max_new_tokens=6) for prompt in prompts]
    holes = [("def f(", "):\n"), ("x = ", "\n")]
    filled = lm.infill([a for a, _ in holes], [b for _, b in holes], 6)
    assert [each.text for each in filled] == [lm.infill(a, b, 6).text for a, b in holes]


def test_ids_give_ids_and_numpy_too(lm: LM) -> None:
    assert lm.generate(np.array([70, 80, 90]), 4) == lm.generate([70, 80, 90], 4)
    assert lm.generate([[70, 80, 90], [71]], 4) == [lm.generate([70, 80, 90], 4), lm.generate([71], 4)]


def test_a_model_whose_keys_turn_anew_as_a_text_grows_writes_without_a_cache(lm: LM) -> None:
    """Dynamic rope scaling; while the text is short it scales nothing, so the engine's model tells what to expect."""
    rope = dataclasses.replace(lm.config.rope, scaling="dynamic", factor=2.0, original_seq_len=128)
    config = dataclasses.replace(lm.config, rope=rope)
    turning = dataclasses.replace(lm, config=config, model=create(config, 0))
    sampling = {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2, "logit_bias": {70: 3.0}}
    free = lm.generate("def f(", 12)
    for given in ({}, {"seed": 3, **sampling}, {"stop": [free[3:5]]}):
        assert turning.generate(["def f(", "x"], 12, **given) == lm.generate(["def f(", "x"], 12, **given)
    [ours, theirs] = [each.infill("x = ", "\n", 6, n=2, heal="") for each in (turning, lm)]
    assert [text.text for text in ours] == [text.text for text in theirs]
    with pytest.raises(UserError, match="takes no grammar and no token healing: give heal=''"):
        turning.infill("x = ", "\n", 6)


def test_stop_strings_and_stop_tokens_may_be_mixed(lm: LM) -> None:
    free = lm.generate("def f(", max_new_tokens=12)
    cut = re.findall(r"[ -~]", free)[-1]
    assert lm.generate("def f(", max_new_tokens=12, stop=[cut, 2**9 - 1]) == free[: free.index(cut)]


@pytest.mark.parametrize("mode", ["psm", "spm"])
@pytest.mark.parametrize("prefix", ["import js", "def mea", "", "x = [1, 2"])
def test_what_is_healed_goes_on_from_what_was_typed(lm: LM, mode: str, prefix: str) -> None:
    """The text that was taken back is written again, and not given out twice."""
    assert lm.tokenizer is not None
    done = lm.infill(prefix, "\n", 8, mode=mode)
    written = lm.tokenizer.decode(done.ids)
    taken_back = written[: len(written) - len(done.text)] if done.text else written
    assert prefix.endswith(taken_back)
    assert written == taken_back + done.text


def test_n_gives_so_many_and_the_seeds_of_each(lm: LM) -> None:
    several = lm.infill("x = ", "\n", 6, n=3, sampling={"temperature": 1.5}, seed=5)
    alone = [lm.infill("x = ", "\n", 6, sampling={"temperature": 1.5}, seed=5 + i) for i in range(3)]
    assert [each.ids for each in several] == [each.ids for each in alone]
    assert len({tuple(each.ids) for each in several}) == 3


def test_of_a_long_file_what_is_nearest_to_the_cursor_is_read(lm: LM) -> None:
    tokenizer = lm.tokenizer
    assert tokenizer is not None
    prefix, suffix = "".join(f"a{i} = {i}\n" for i in range(300)), "".join(f"b{i} = {i}\n" for i in range(300))
    prompt, _ = prompt_and_ends(lm, prefix, suffix, 100)
    before = [i for i, role in zip(prompt.ids, prompt.roles, strict=True) if role is formats.Role.PREFIX]
    after = [i for i, role in zip(prompt.ids, prompt.roles, strict=True) if role is formats.Role.SUFFIX]
    assert len(prompt.ids) == 100
    assert prefix.endswith(tokenizer.decode(before))
    assert suffix.startswith(tokenizer.decode(after))
    assert len(before) == int(0.7 * (len(before) + len(after)))
    assert lm.infill(prefix, suffix, 8).text is not None  # and the engine takes it


def test_a_suffix_needs_a_model_that_takes_one(lm: LM) -> None:
    """Without the tokens of any format: the prefix alone is continued, a suffix refused."""
    tokenizer = lm.tokenizer
    assert tokenizer is not None
    plain = dataclasses.replace(lm, tokenizer=dataclasses.replace(tokenizer, special={"<s>": 1}))
    with pytest.raises(UserError, match="takes no suffix"):
        plain.infill("x = ", "\n", 4)
    assert plain.infill("x = ", "", 4).ids


def test_the_format_is_the_runs_own_or_found_by_its_tokens(lm: LM) -> None:
    assert family_of(lm).name == "codelm"
    assert family_of(dataclasses.replace(lm, prompt_format="qwen2.5-coder")).name == "qwen2.5-coder"
    with pytest.raises(UserError, match="did you mean"):
        family_of(lm, "qwen")


def test_texts_too_long_and_settings_that_cannot_be_are_refused(lm: LM) -> None:
    for call in (
        lambda: lm.generate("x = 1\n" * 200, 8),
        lambda: lm.generate("x", 8, temperature=-1.0),
        lambda: lm.generate("x", 8, top_p=2.0),
        lambda: lm.generate("x", 8, stop=[""]),
        lambda: lm.generate("x", 0),
        lambda: lm.infill("x", "y", 500),
    ):
        with pytest.raises(UserError):
            call()


# ---- the commands ----


@pytest.mark.parametrize(
    ("text", "cursor", "before"),
    [
        ("ab\ncd\n", "1:1", ""),
        ("ab\ncd\n", "1:3", "ab"),
        ("ab\ncd\n", "2:2", "ab\nc"),
        ("ab\ncd\n", "3:1", "ab\ncd\n"),
        ("ab\r\ncd", "2:1", "ab\r\n"),
        ("", "1:1", ""),
    ],
)
def test_a_cursor_cuts_the_text_before_its_character(text: str, cursor: str, before: str) -> None:
    assert at_cursor(text, cursor) == (before, text[len(before) :])


@pytest.mark.parametrize("cursor", ["0:1", "4:1", "1:4", "1", "a:b", "1:0"])
def test_a_cursor_outside_the_text_is_refused(cursor: str) -> None:
    with pytest.raises(UserError, match="cursor"):
        at_cursor("ab\ncd\n", cursor)


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_complete_writes_what_infill_gives(
    lm: LM, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.py"
    file.write_text("def f(a):\n    return \n")
    code, out, err = run(
        capsys, "complete", folder, "--file", file, "--cursor", "2:12", "--max_new_tokens", 6, "--stats"
    )
    assert (code, out) == (0, lm.infill("def f(a):\n    return ", "\n", 6).text + "\n")
    assert re.search(r"first token\s+[\d.]+ ms", err)
    code, out, _ = run(capsys, "complete", folder, "--file", file, "--cursor", "2:12", "--n", 2, "--max_new_tokens", 4)
    assert (code, out.count("── ")) == (0, 2)


def test_generate_writes_the_prompt_and_what_follows(
    lm: LM, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys, "generate", folder, "--prompt", "def f(", "--max_new_tokens", 6)
    assert (code, out) == (0, "def f(" + lm.generate("def f(", 6) + "\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("def f("))
    assert run(capsys, "generate", folder, "--prompt", "-", "--max_new_tokens", 6)[1] == out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["complete", "FOLDER", "--file", "nowhere.py", "--cursor", "1:1"], "cannot read nowhere.py"),
        (["complete", "nowhere", "--file", "FILE", "--cursor", "1:1"], "nowhere: no such folder"),
        (["complete", "FOLDER", "--file", "FILE", "--cursor", "99:1"], "cursor 99:1"),
        (["complete", "FOLDER", "--file", "FILE", "--cursor", "1:1", "--format", "nope"], "unknown model family"),
        (["complete", "FOLDER", "--file", "FILE", "--cursor", "1:1", "--mode", "mid"], "mode"),
        (["generate", "FOLDER", "--prompt", "x", "--temperature", "-1"], "temperature"),
        (["generate", "FOLDER", "--prompt", ""], "prompt"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, tmp_path: Path, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.py"
    file.write_text("x = 1\n")
    code, _, err = run(capsys, *(word.replace("FOLDER", str(folder)).replace("FILE", str(file)) for word in argv))
    assert code == 2
    assert said in err
    assert err.count("\n") == 1

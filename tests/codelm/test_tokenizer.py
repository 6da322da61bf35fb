"""Text becomes tokens and back without loss, and user text never becomes a special token."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from codelm import text_files, tokenizer_training
from codelm.errors import UserError
from codelm.sentencepiece_proto import ModelProto
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer import OWN_SPECIALS, Tokenizer, load
from tests.codelm.conftest import STDLIB

# Hypothesis draws from one strategy, so the tokenizers under test are built once here, not in fixtures.
CODE = (STDLIB / "dataclasses.py").read_text()
AWKWARD = [
    "",
    " ",
    "\n",
    "\r\n",
    "a\r\nb\r\n",
    "\t\t x\t",
    "   leading and trailing   ",
    "nul\0inside",
    "é 漢字 😀 👩‍👩‍👧 e\u0301",
    "\ufeffbom",
    "\u2581 the space symbol \u2581\u2581",
    "\u2585 its unknown symbol",
    "\u0085\u2028\u2029\x0b\x0c",
    b"\xff\xfe not utf-8 \x80".decode("utf-8", "surrogateescape"),
    b"\xff\xfe".decode("utf-8", "replace"),
    "\ud83d\ude00 two lone surrogates",
    "x" * 50_000,
    " " * 5_000,
    "\n" * 3_000,
    "0123456789",
    *OWN_SPECIALS[:8],
]
PIECES = [*AWKWARD, *CODE.split(" ")[:50]]
TEXT = st.one_of(
    st.text(max_size=80),
    st.text(st.characters(categories=("Cs", "Cc", "Zs", "So", "Ll")), max_size=40),
    st.lists(st.sampled_from(PIECES[:16] + PIECES[20:]), max_size=6).map("".join),
    st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)


def byte_level() -> bytes:
    """A tokenizer.json as GPT-2's descendants have it, with FIM tokens that are not marked special (Qwen)."""
    tokens = tokenizers.Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokens.train_from_iterator(
        [CODE], trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    tokens.add_special_tokens(["<|endoftext|>"])
    tokens.add_tokens(
        [tokenizers.AddedToken(name, special=False) for name in ("<|fim_prefix|>", "<tool_call>", "<table>")]
    )
    template = [("<|endoftext|>", tokens.token_to_id("<|endoftext|>"))]
    tokens.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=template)
    return tokens.to_str().encode()


def metaspace() -> bytes:
    """A tokenizer.json as Llama 2's descendants have it: a space put in front, bytes as pieces."""
    tokens = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokens.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokens.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=specials, show_progress=False)
    tokens.train_from_iterator(CODE.split("\n"), trainer)
    content = json.loads(tokens.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < 3]
    return json.dumps(content).encode()


def llama_model() -> bytes:
    """A tokenizer.model that puts a space in front, and has CodeLlama's FIM pieces as user-defined ones."""
    model = ModelProto()
    model.ParseFromString(tokenizer_training.train(CODE.splitlines(keepends=True), 1024))
    model.normalizer_spec.add_dummy_prefix = True
    for name in ("\u2581<PRE>", "\u2581<MID>"):
        model.pieces.add(piece=name, score=0.0, type=model.SentencePiece.USER_DEFINED)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers")
    lines = CODE.splitlines(keepends=True)
    (folder / "own.model").write_bytes(tokenizer_training.train(lines, 1024))
    (folder / "llama.model").write_bytes(llama_model())
    (folder / "byte_level.json").write_bytes(byte_level())
    (folder / "metaspace.json").write_bytes(metaspace())
    return folder


@pytest.fixture(scope="module", params=["own.model", "llama.model", "byte_level.json", "metaspace.json"])
def any_tokenizer(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    return load(folder / request.param)


def test_awkward_text_comes_back(any_tokenizer: Tokenizer, folder: Path) -> None:
    for text in AWKWARD:
        if any_tokenizer.encoder.awkward.search("\u2581") or "\u2581" not in text:  # imported Metaspace: a space
            assert any_tokenizer.decode(any_tokenizer.encode(text)) == text, repr(text)[:60]


@settings(max_examples=400, deadline=None)
@given(TEXT)
@example("\u2581\udfff<|fim_prefix|>\udfff")
def test_every_string_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(TEXT.filter(lambda text: "\u2581" not in text))
def test_every_string_comes_back_from_imported_tokenizers(any_tokenizer: Tokenizer, text: str) -> None:
    assert any_tokenizer.decode(any_tokenizer.encode(text)) == text


def test_a_whole_library_comes_back(tokenizer: Tokenizer) -> None:
    for file in text_files.find([STDLIB / "encodings"]):
        text = file.path.read_bytes().decode("utf-8", "surrogateescape")
        assert tokenizer.decode(tokenizer.encode(text)) == text


# ---- special tokens ----


def test_user_text_never_becomes_a_special_token(any_tokenizer: Tokenizer) -> None:
    special = set(any_tokenizer.special.values())
    assert special
    for name in any_tokenizer.special:
        for typed in (name, name.replace("\u2581", " "), f"x{name}y", f"<{name}>", name * 3, f" {name} \n"):
            assert special.isdisjoint(any_tokenizer.encode(typed)), typed
            if "\u2581" not in typed:
                assert any_tokenizer.decode(any_tokenizer.encode(typed)) == typed


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*OWN_SPECIALS[:20], "<|", "|>", "<", " ", "a", "\n"]), max_size=8).map("".join))
def test_no_text_around_a_name_makes_it_special(tokenizer: Tokenizer, text: str) -> None:
    assert set(tokenizer.special.values()).isdisjoint(tokenizer.encode(text))


def test_the_caller_can_ask_for_special_tokens(any_tokenizer: Tokenizer) -> None:
    for name, i in any_tokenizer.special.items():
        typed = name.replace("\u2581", " ")
        assert any_tokenizer.encode(f"ab{typed}c", allow_special=True).count(i) == 1
        assert any_tokenizer.decode([i]) == ""
        assert any_tokenizer.decode([i], show_special=True) == name


def test_control_tokens_not_marked_special_are_special_all_the_same(folder: Path) -> None:
    imported = load(folder / "byte_level.json")
    assert set(imported.special) == {"<|endoftext|>", "<|fim_prefix|>", "<tool_call>"}
    assert len(imported.encode("<table>")) == 1  # an HTML tag is text, and one piece in this vocabulary


def test_own_specials_are_the_first_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.special[name] for name in OWN_SPECIALS] == list(range(len(OWN_SPECIALS)))
    for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep", "endoftext", "spare_0"):
        assert f"<|{name}|>" in tokenizer.special
    for name in ("system", "user", "assistant", "tool", "tool_call", "tool_result"):
        assert f"<|{name}|>" in tokenizer.special


# ---- what makes it one for code ----


def cut(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.pieces[i].decode() for i in tokenizer.encode(text)]


def test_digits_are_single(tokenizer: Tokenizer) -> None:
    assert cut(tokenizer, "x=12345") == ["x", "=", "1", "2", "3", "4", "5"]
    assert not [piece for piece in tokenizer.pieces if sum(chr(byte).isdigit() for byte in piece) and len(piece) > 1]


@pytest.mark.parametrize("run", ["\n", "\r\n", "\t", "\t\t\t", *(" " * n for n in (2, 3, 4, 8, 12, 16, 20, 32))])
def test_white_space_runs_are_one_piece(tokenizer: Tokenizer, run: str) -> None:
    assert cut(tokenizer, f"{run}(")[:1] == [run]
    assert cut(tokenizer, f";{run}(")[1:2] == [run]


def test_no_piece_crosses_a_line_end(tokenizer: Tokenizer) -> None:
    assert [piece for piece in tokenizer.pieces if b"\n" in piece] == [b"\n", b"\r\n", b"\n"]  # the last is a byte


def test_nothing_is_put_in_front(any_tokenizer: Tokenizer) -> None:
    assert any_tokenizer.pieces[any_tokenizer.encode("(")[0]] == b"("
    assert any_tokenizer.encode("") == []


def test_all_bytes_and_printable_ascii_are_there(tokenizer: Tokenizer) -> None:
    assert None not in tokenizer.byte_ids
    for byte in range(0x21, 0x7F):
        assert len(tokenizer.encode(chr(byte))) == 1


# ---- imported tokenizers cut text as their own library does ----


def test_imported_tokenizer_json_cuts_as_tokenizers_does(folder: Path) -> None:
    reference = tokenizers.Tokenizer.from_file(str(folder / "byte_level.json"))
    ours = load(folder / "byte_level.json")
    assert ours.encode(CODE) == reference.encode(CODE, add_special_tokens=False).ids
    assert ours.vocab_size == reference.get_vocab_size()


def test_imported_llama_files_cut_as_their_libraries_do_behind_the_leading_space(folder: Path) -> None:
    reference = tokenizers.Tokenizer.from_file(str(folder / "metaspace.json"))
    assert load(folder / "metaspace.json").encode(" " + CODE) == reference.encode(CODE, add_special_tokens=False).ids
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "llama.model"))
    assert load(folder / "llama.model").encode(" " + CODE) == processor.encode(CODE)


def test_documents_begin_as_their_own_library_begins_them(folder: Path) -> None:
    for name in ("byte_level.json", "metaspace.json"):
        reference = tokenizers.Tokenizer.from_file(str(folder / name))
        assert load(folder / name).encode_document(CODE) == reference.encode(CODE).ids
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "llama.model"))
    assert load(folder / "llama.model").encode_document(CODE) == processor.encode(CODE)
    assert load(folder / "own.model").encode_document("x = 1") == load(folder / "own.model").encode("x = 1")


def test_a_folder_is_searched_for_its_tokenizer(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither tokenizer"):
        load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes((folder / "own.model").read_bytes())
    assert load(tmp_path).vocab_size == 1024
    (tmp_path / "tokenizer.json").write_bytes((folder / "byte_level.json").read_bytes())
    assert load(tmp_path).vocab_size == load(folder / "byte_level.json").vocab_size


@pytest.mark.parametrize("name", ["own.model", "byte_level.json"])
def test_damaged_files_are_refused(name: str, folder: Path, tmp_path: Path) -> None:
    whole = (folder / name).read_bytes()
    for damaged in (b"", b"\0\1\2\3", whole[: len(whole) // 2], b"[]"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UserError, match=f"{name} is .*damaged"):
            load(tmp_path / name)


def test_tokenizers_travel_to_worker_processes(any_tokenizer: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(any_tokenizer))
    assert copy.encode(CODE) == any_tokenizer.encode(CODE)


def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer) -> None:
    for i in (-1, tokenizer.vocab_size):
        with pytest.raises(UserError, match="outside the vocabulary"):
            tokenizer.decode([i])


def test_ids_that_are_not_text_do_not_fail(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.byte_ids[0xFF], tokenizer.byte_ids[0xC3], *tokenizer.encode("a")]
    assert tokenizer.decode([i for i in ids if i is not None]) == "\ufffd\ufffda"


# ---- extension ----


def test_new_pieces_are_cut_out_whole_and_old_ids_stay(proto: bytes, tokenizer: Tokenizer) -> None:
    extended = from_proto(tokenizer_training.extend(proto, ["def __init__(self", "\u00e9\u00e9"], ["<|new|>"]))
    assert extended.vocab_size == tokenizer.vocab_size + 3
    assert extended.pieces[: tokenizer.vocab_size] == tokenizer.pieces
    assert cut(extended, "def __init__(self, x)")[0] == "def __init__(self"
    assert extended.special["<|new|>"] == tokenizer.vocab_size + 2
    assert extended.encode("<|new|>") == tokenizer.encode("<|new|>")
    assert extended.decode(extended.encode(CODE)) == CODE


@pytest.mark.parametrize("piece", ["", "def", "a\0b", "\ud800"])
def test_pieces_that_cannot_be_added_are_refused(proto: bytes, piece: str) -> None:
    with pytest.raises(UserError, match="cannot add the piece"):
        tokenizer_training.extend(proto, [piece])
    with pytest.raises(UserError, match="already there"):
        tokenizer_training.extend(proto, ["brand new", "brand new"])


def test_new_embedding_rows_are_the_mean_of_the_pieces_they_replace(proto: bytes, tokenizer: Tokenizer) -> None:
    extended = from_proto(tokenizer_training.extend(proto, ["def __init__(self"], ["<|new|>"]))
    table = np.random.default_rng(0).normal(size=(tokenizer.vocab_size + 5, 3)).astype(np.float32)  # padded
    longer = tokenizer_training.extend_embedding(table, tokenizer, extended)
    assert longer.shape == (extended.vocab_size, 3)
    np.testing.assert_array_equal(longer[: tokenizer.vocab_size], table[: tokenizer.vocab_size])
    replaced = [tokenizer.encode(text) for text in ("def __init__(self", "<|new|>")]
    by_hand = [sum(table[i] for i in ids) / len(ids) for ids in replaced]
    np.testing.assert_allclose(longer[tokenizer.vocab_size :], by_hand, rtol=1e-6)
    with pytest.raises(UserError, match="rows"):
        tokenizer_training.extend_embedding(table[:5], tokenizer, extended)

"""Contract 3: an epoch holds every character of every document exactly once, in order, whatever is mixed and cut."""

from collections import defaultdict

import numpy as np
import pytest

from codelm.data_config import FimConfig, RepositoryConfig, SourceConfig
from codelm.formats import Role
from data.loader import Loader, Row
from data.rows import PADDING
from tests.data.batches import EVERY_CHOOSER, NO_HOLES, Batches
from tests.data.unwritten import files_of, pieces

LEVELS = {
    "files": (SourceConfig(), {}),
    "repositories, hole in the last": (SourceConfig(level="repository"), {"fim": FimConfig(1.0, spans=EVERY_CHOOSER)}),
    "repositories, holes in each": (
        SourceConfig(level="repository"),
        {"fim": FimConfig(0.7, spans=EVERY_CHOOSER, repository="each")},
    ),
    "by imports": (
        SourceConfig(level="repository"),
        {"repository": RepositoryConfig(order="imports", tests_beside=True), "seq_len": 1024},
    ),
    "no holes": (SourceConfig(), {"fim": NO_HOLES}),
    "every chooser": (SourceConfig(), {"fim": FimConfig(1.0, spans=EVERY_CHOOSER)}),
    "context cut off": (SourceConfig(), {"fim": FimConfig(1.0, spans=EVERY_CHOOSER, causal_context=40)}),
    "no paths": (SourceConfig(), {"metadata": 0.0}),
    "short rows": (SourceConfig(), {"seq_len": 64, "metadata": 1.0}),
    "languages evened out": (SourceConfig(), {"temperature": 3.0}),
    "long ones oftener": (SourceConfig(level="repository"), {"long_tokens": 1312, "long_weight": 3.0}),
}


def epoch(loader: Loader) -> list[Row]:
    """The first epoch of every stratum, whichever rows of the run they are."""
    wanted = sum(rows.stratum.rows for rows in loader.strata)
    found: list[Row] = []
    number = 0
    while len(found) < wanted:
        row = loader.row(number)
        if row.epoch == 0:
            found.append(row)
        number += 1
        assert number < 200 * wanted
    return found


# Rows filled to the brim part documents wherever they end: with each kind of thing to part; the rest is slow.
PARTED = ("files", "repositories, holes in each", "by imports", "every chooser", "short rows")
CASES = [(case, "best_fit") for case in LEVELS] + [(case, "concatenate") for case in PARTED]
OTHERS = [pytest.param(case, "concatenate", marks=pytest.mark.slow) for case in LEVELS if case not in PARTED]


@pytest.mark.parametrize(("case", "packing"), [*CASES, *OTHERS])
def test_an_epoch_holds_every_document_once(batches: Batches, case: str, packing: str) -> None:
    source, data = LEVELS[case]
    loader = batches.loader(source, packing=packing, **data)
    texts: dict[tuple[str, str], dict[int, bytes]] = defaultdict(dict)
    for row in epoch(loader):
        for files, written in documents(row, batches):
            assert len(files) == len(written)
            for (document, start, stop), (path, text) in zip(files, written, strict=True):
                names = row.writer.store.names(document)
                assert path in (None, names.path)
                ids = row.writer.store.tokens(document, start, stop)
                assert text == b"".join(batches.tokenizer.pieces[i] for i in ids)
                place = texts[names.repository, names.path]
                assert start not in place, "twice"
                place[start] = text
    joined = {name: b"".join(parts[at] for at in sorted(parts)).decode() for name, parts in texts.items()}
    assert joined == batches.texts()


def documents(row: Row, batches: Batches) -> list[tuple[tuple, list]]:
    """Of each segment in the arrays of a row, where it is from and what it says. What was parted around a hole is put
    together again."""
    found: list[tuple[tuple, list]] = []
    for number, document in enumerate(row.documents):
        inside = row.arrays["segment_ids"] == number
        tokens, targets = row.arrays["tokens"][inside].tolist(), row.arrays["targets"][inside].tolist()
        assert tokens[1:] == targets[:-1]
        assert row.arrays["positions"][inside].tolist() == list(range(len(tokens)))
        ids = tokens if document.ahead else [*tokens, targets[-1]]
        end = batches.tokenizer.special["<|endoftext|>"]
        assert ids.count(end) == (ids[-1] == end)
        files = files_of(ids, batches.tokenizer)
        if found and found[-1][0] == document.files:
            (path, before), (_, after) = found[-1][1][0], files[0]
            found[-1][1][0] = (path, before + after)
        else:
            found.append((document.files, files))
    return found


def test_padding_is_what_no_segment_holds(batches: Batches) -> None:
    loader = batches.loader(fim=FimConfig(1.0, spans=EVERY_CHOOSER))
    for number in range(30):
        arrays, documents = loader.row(number).arrays, loader.row(number).documents
        used = sum(document.positions for document in documents)
        assert used <= loader.seq_len
        assert (arrays["segment_ids"][used:] == PADDING).all()
        assert (arrays["segment_ids"][:used] >= 0).all()
        for name in ("loss_weights", "positions"):
            assert not arrays[name][used:].any()
        assert (arrays["loss_weights"][:used] == 1).all(), "loss on all tokens, the end token too"


def test_no_token_of_a_document_is_special(batches: Batches) -> None:
    """Text that spells a sentinel stays text."""
    special = set(batches.tokenizer.special.values())
    for rows in batches.loader().strata:
        store = rows.writer.store
        for document in range(len(store)):
            count = int(store.documents["tokens"][document])
            assert special.isdisjoint(store.tokens(document, 0, count).tolist())


def test_roles_are_where_the_sentinels_say(batches: Batches) -> None:
    loader = batches.loader(fim=FimConfig(1.0, spm=0.0), metadata=0.0)
    kinds = {"fim_prefix": Role.PREFIX, "fim_suffix": Role.SUFFIX, "fim_middle": Role.MIDDLE, "mask_end": None}
    seen = set()
    for number in range(40):
        for document in loader.row(number).documents:
            if not (document.holes and document.holes[0].mode == "psm"):
                continue
            at = 0
            for name, content in pieces(document.ids, batches.tokenizer)[1:]:
                at += 1
                while content:
                    assert document.roles[at] == kinds[name]
                    content = content[len(batches.tokenizer.pieces[document.ids[at]]) :]
                    at += 1
                seen.add(name)
    assert {"fim_prefix", "fim_suffix", "fim_middle", "endoftext"} <= seen


def test_the_tokens_are_those_of_the_text(batches: Batches) -> None:
    store = batches.loader().strata[0].writer.store
    for document in range(len(store)):
        names, count = store.names(document), int(store.documents["tokens"][document])
        text = batches.texts()[names.repository, names.path]
        assert store.tokens(document, 0, count).tolist() == batches.tokenizer.encode(text)
        assert np.array_equal(store.tokens(document, 3, min(count, 9)), store.tokens(document, 0, count)[3:9])

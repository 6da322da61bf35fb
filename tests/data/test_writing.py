"""One segment at a time: nothing is lost at the edges, what does not fit is said, context is cut 70 to 30."""

import numpy as np
import pytest

from codelm.data_config import FimConfig, SourceConfig, SpansConfig
from codelm.formats import Role
from data.writing import Writer
from tests.data.batches import NO_HOLES, Batches
from tests.data.unwritten import files_of

CAUSAL = SpansConfig(characters=0.0, causal=1.0)


def writer(batches: Batches, level: str = "file", **data: object) -> Writer:
    return batches.loader(SourceConfig(level=level), **data).strata[0].writer  # type: ignore[arg-type]


def number_of(found: Writer, path: str) -> int:
    return next(n for n in range(len(found.store)) if found.store.names(n).path == path)


def test_a_single_token_is_learnt_where_the_repository_goes_on(batches: Batches) -> None:
    found = writer(batches, "repository", fim=NO_HOLES, metadata=0.0)
    tiny = next(n for n in range(len(found.store)) if found.store.documents["tokens"][n] == 1)
    (written,) = found.write([(tiny, 0, 1)], 256, False, np.random.default_rng(0))
    assert written.positions == 1
    assert written.ids[-1] == found.store.tokens(tiny, 0, 1)[0]


@pytest.mark.parametrize("complete", [False, True])
def test_what_is_cut_off_around_a_hole_stays_in_the_row(batches: Batches, complete: bool) -> None:
    """Whatever the context and wherever the text ends: a single token left over would be neither read nor learnt."""
    tokens, end = batches.tokenizer, batches.tokenizer.special["<|endoftext|>"]
    parted = 0
    for context in (1, 2, 5, 20, 60):
        found = writer(batches, fim=FimConfig(1.0, spans=CAUSAL, causal_context=context), metadata=0.0)
        document = number_of(found, "lib/util.py")
        for seed in range(60):
            stop = 60 + seed
            written = found.write([(document, 5, stop)], 400, complete, np.random.default_rng(seed))
            assert all(part.positions > 0 for part in written)
            texts = [files_of(part.ids[: -1 if part.ahead else None], tokens)[0][1] for part in written]
            assert b"".join(texts) == b"".join(tokens.pieces[i] for i in found.store.tokens(document, 5, stop))
            assert (written[-1].ids[-1] == end) == (complete or len(written) < 2 or bool(written[-1].holes))
            parted += len(written) > 1
    assert parted > 200


def test_context_is_cut_seventy_to_thirty(batches: Batches) -> None:
    found = writer(batches, fim=FimConfig(1.0, spans=CAUSAL, causal_context=40), metadata=0.0)
    document, seen = number_of(found, "long.py"), 0
    for seed in range(40):
        written = found.write([(document, 0, 240)], 400, False, np.random.default_rng(seed))
        if len(written) == 3:
            hole = written[1]
            before, after = (sum(role is kind for role in hole.roles) for kind in (Role.PREFIX, Role.SUFFIX))
            assert 28 <= before <= 30, "characters stay whole, and a cut may cost a token"
            assert 10 <= after <= 14
            seen += 1
    assert seen > 10


def test_paths_come_before_a_causal_hole_always(batches: Batches) -> None:
    found = writer(batches, fim=FimConfig(1.0, spans=CAUSAL), metadata=0.0)
    document = number_of(found, "lib/util.py")
    for seed in range(20):
        (written,) = found.write([(document, 0, 80)], 400, True, np.random.default_rng(seed))
        assert files_of(written.ids, batches.tokenizer)[0][0] == "lib/util.py"


@pytest.mark.parametrize("level", ["file", "repository"])
def test_what_does_not_fit_is_left_out_and_said(batches: Batches, level: str) -> None:
    """First the hole, then the path; the text is there in any case."""
    found = writer(batches, level, fim=FimConfig(1.0), metadata=1.0)
    document = number_of(found, "lib/util.py")
    record = found.store.documents[document]
    said = 80 + int(record["name"]) + int(record["header"])
    for room, holes, named in ((said + 20, True, True), (said, False, True), (said - 1, False, False)):
        (written,) = found.write([(document, 0, 80)], room, True, np.random.default_rng(1))
        assert written.positions <= room
        path, text = files_of(written.ids, batches.tokenizer)[0]
        assert text == b"".join(batches.tokenizer.pieces[i] for i in found.store.tokens(document, 0, 80))
        assert bool(written.holes[0].mode) == holes, room
        assert (path == "lib/util.py") == named
        if not holes:
            assert written.holes[0].fallback == "does_not_fit"


def test_a_language_without_a_grammar_falls_back_and_is_counted(batches: Batches) -> None:
    spans = SpansConfig(characters=0.0, syntax=1.0)
    found = writer(batches, fim=FimConfig(1.0, spans=spans))
    for path, fallback in (("rare.txt", "syntax:no_grammar"), ("lib/util.py", ""), ("cmd/main.go", "")):
        document = number_of(found, path)
        (written,) = found.write([(document, 0, 60)], 400, True, np.random.default_rng(0))
        assert (written.holes[0].chooser, written.holes[0].fallback) == (
            ("characters", fallback) if fallback else ("syntax", "")
        )

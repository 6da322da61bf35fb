"""Contract 2: a batch is a pure function of (config, seed, step), on any number of hosts and workers."""

import dataclasses
import multiprocessing
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from codelm.cache import EMPTY
from codelm.config import Config
from codelm.config_io import to_json
from codelm.data_config import FimConfig, SourceConfig
from codelm.errors import UserError
from data import loader as loading
from data.loader import Loader
from data.rows import PADDING, Arrays
from tests.data.batches import EVERY_CHOOSER, VOCAB, Batches, build_corpus, documents

STEPS = (0, 1, 7, 8, 12345)


@pytest.fixture(scope="module")
def mixed(batches: Batches, tmp_path_factory: pytest.TempPathFactory) -> Loader:
    """Everything at once: two corpora and three levels, changing weights, every chooser, evened languages."""
    return batches.loader(*sources(batches, tmp_path_factory.mktemp("other")), **EVERYTHING)


EVERYTHING = {
    "fim": FimConfig(0.8, spans=EVERY_CHOOSER, repository="each"),
    "boundaries": (8,),
    "temperature": 2.0,
    "metadata": 0.5,
}


def sources(batches: Batches, folder: Path) -> tuple[SourceConfig, ...]:
    other = build_corpus(folder, "other", documents(3))
    chats = folder / "chats.jsonl"
    turns = (
        '{"messages": [{"role": "user", "content": "How? %d"}, {"role": "assistant", "content": "So: `x = %d`."}]}\n'
    )
    chats.write_text("".join(turns % (n, n * n) for n in range(60)))
    return (
        SourceConfig(),
        SourceConfig(corpus=str(other), level="repository", weight=(2.0, 0.5)),
        SourceConfig(corpus=str(chats), level="chat", weight=(0.25,)),
    )


def equal(a: Arrays, b: Arrays) -> bool:
    assert a.keys() == b.keys() == {"tokens", "targets", "loss_weights", "positions", "segment_ids"}
    return all(np.array_equal(a[name], b[name]) for name in Arrays.__annotations__)


def joined(parts: list[Arrays]) -> Arrays:
    return Arrays(**{name: np.concatenate([part[name] for part in parts]) for name in Arrays.__annotations__})


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_hosts_make_the_same_batch_together(mixed: Loader, hosts: int) -> None:
    for step in STEPS:
        parts = [mixed.local_batch(step, host, hosts) for host in range(hosts)]
        assert all(part["tokens"].shape == (8 // hosts, 256) for part in parts)
        assert equal(joined(parts), mixed.batch(step))


@pytest.mark.parametrize(("workers", "hosts"), [(0, 1), (0, 2), (0, 4), (0, 8), (1, 1), (2, 4)])
def test_workers_make_the_same_batches(mixed: Loader, workers: int, hosts: int) -> None:
    """The last host's part of it, over a change of the mixture's weights."""
    each = 8 // hosts
    made = list(mixed.batches(5, 11, range(8 - each, 8), workers))
    assert len(made) == 6
    for step, batch in zip(range(5, 11), made, strict=True):
        assert equal(batch, mixed.local_batch(step, hosts - 1, hosts))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_every_host_with_any_workers(mixed: Loader, hosts: int, workers: int) -> None:
    """All of them, side by side."""
    each = 8 // hosts
    parts = [list(mixed.batches(6, 10, range(host * each, host * each + each), workers)) for host in range(hosts)]
    for number, step in enumerate(range(6, 10)):
        assert equal(joined([part[number] for part in parts]), mixed.batch(step))


def test_closing_ends_the_processes(mixed: Loader) -> None:
    batches = mixed.batches(workers=1)
    kept = next(batches)
    assert {type(values) for values in kept.values()} == {np.ndarray}, "not in memory that is shared"
    assert multiprocessing.active_children()
    batches.close()
    assert not multiprocessing.active_children()


def test_arrays_are_what_the_model_takes(mixed: Loader) -> None:
    assert PADDING == EMPTY
    batch = mixed.batch(3)
    assert {name: values.dtype.name for name, values in batch.items()} == {
        "tokens": "int32",
        "targets": "int32",
        "loss_weights": "float32",
        "positions": "int32",
        "segment_ids": "int32",
    }
    for name in ("tokens", "targets"):
        assert batch[name].min() >= 0
        assert batch[name].max() < VOCAB


def test_rows_differ_by_step_row_and_seed(batches: Batches, mixed: Loader) -> None:
    batch = mixed.batch(0)
    assert len({row.tobytes() for row in batch["tokens"]}) == 8
    assert not equal(batch, mixed.batch(1))
    plain, other = batches.loader(), batches.loader(seed=1)
    assert not equal(plain.batch(0), other.batch(0))


def test_randomness_comes_from_the_seed_and_the_number_of_the_row(batches: Batches) -> None:
    loader = batches.loader(SourceConfig(), SourceConfig(level="repository"), seed=5, fim=FimConfig(1.0))
    for number in range(12):
        stratum, drawn = loader.mixture.locate(number)
        rng = np.random.Generator(np.random.Philox(key=[5, number]))
        assert loader.row(number).documents == tuple(loader.strata[stratum].documents(drawn, 256, rng))


def test_another_process_makes_the_same_batch(batches: Batches, mixed: Loader, tmp_path: Path) -> None:
    """With another hash seed, and with nothing made before: no set, dict or cache decides anything."""
    config = batches.config(*[source_of(rows) for rows in distinct(mixed)], **EVERYTHING)
    (tmp_path / "config.json").write_text(to_json(config))
    code = f"""
from pathlib import Path
from codelm import config_io
from data import loader
import numpy as np
made = loader.make(config_io.load({str(tmp_path / "config.json")!r}), {str(batches.corpus)!r},
                   cache=Path({str(tmp_path / "cache")!r}), workers=1)
np.save({str(tmp_path / "tokens.npy")!r}, made.batch(12345)["tokens"])
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": "77", "JAX_PLATFORMS": "cpu"})
    assert np.array_equal(np.load(tmp_path / "tokens.npy"), mixed.batch(12345)["tokens"])


def distinct(mixed: Loader) -> list[loading.StratumRows]:
    return list({id(rows.writer): rows for rows in mixed.strata}.values())


def source_of(rows: loading.StratumRows) -> SourceConfig:
    return next(source for source in rows.writer.data.sources if rows.name.startswith(loading.short_name(source)))


def test_any_step_is_as_near_as_the_first(mixed: Loader) -> None:
    """Medians of interleaved timings; the bound is loose for a busy machine, and far from what walking there takes."""
    mixed.batch(10**6)
    spent: dict[int, list[float]] = {0: [], 10**6: [], 10**9: []}
    for round_ in range(12):
        for step, times in spent.items():
            start = time.perf_counter()
            mixed.batch(step + round_)
            times.append(time.perf_counter() - start)
    first = np.median(spent[0])
    assert all(np.median(times) < 3 * first for times in spent.values())


def test_a_loader_travels_light(mixed: Loader) -> None:
    """Workers get folders' names, not what is in them."""
    mixed.batch(0)
    copy = pickle.loads(pickled := pickle.dumps(mixed))
    assert len(pickled) < 200_000
    assert equal(copy.batch(9), mixed.batch(9))


def test_an_epoch_comes_shuffled_anew(batches: Batches) -> None:
    loader = batches.loader(fim=FimConfig(rate=0.0), metadata=0.0)
    (rows,) = loader.strata
    count = rows.stratum.rows
    first, second = ([loader.row(e * count + n).arrays["tokens"].tobytes() for n in range(count)] for e in range(2))
    assert [loader.row(n).epoch for n in (0, count - 1, count, 2 * count)] == [0, 0, 1, 2]
    assert first != second
    assert sorted(first) == sorted(second), "the same rows"
    assert loader.epochs(3) == {"corpus": 24 / count}


def test_holes_are_cut_anew_every_epoch(batches: Batches) -> None:
    loader = batches.loader(fim=FimConfig(rate=1.0))
    (rows,) = loader.strata
    count = rows.stratum.rows
    first, second = ({loader.row(e * count + n).arrays["tokens"].tobytes() for n in range(count)} for e in range(2))
    assert len(first & second) <= count // 20


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_rates_are_those_asked_for(batches: Batches, rate: float) -> None:
    """Four standard deviations of a binomial."""
    loader = batches.loader(fim=FimConfig(rate=rate, spm=0.25), metadata=0.7)
    made = [document for number in range(500) for document in loader.row(number).documents]
    holes = [document.holes[0] for document in made if document.holes]
    total, named = len(made), batches.tokenizer.special["<|repo_name|>"]

    def near(count: int, chance: float, of: int) -> bool:
        return abs(count - chance * of) <= 4 * np.sqrt(of * chance * (1 - chance)) + 0.02 * of * (0 < chance < 1)

    assert near(sum(bool(hole.mode) for hole in holes), rate, total) or rate == 1.0
    assert sum(hole.mode == "" for hole in holes) <= 0.02 * total, "does not fit"
    assert near(sum(hole.mode == "spm" for hole in holes), 0.25, len(holes))
    assert near(sum(document.ids[0] == named for document in made), 0.7, total)


def test_weights_are_shares_of_rows(mixed: Loader, batches: Batches) -> None:
    def shares(start: int, stop: int) -> dict[str, float]:
        names = [mixed.row(number).source.split()[0] for number in range(start * 8, stop * 8)]
        return {name: names.count(name) / len(names) for name in set(names)}

    before, after = shares(0, 8), shares(8, 72)
    assert before == pytest.approx({"corpus": 1 / 3.25, "other": 2 / 3.25, "chats.jsonl": 0.25 / 3.25}, abs=0.05)
    assert after == pytest.approx({"corpus": 1 / 1.75, "other": 0.5 / 1.75, "chats.jsonl": 0.25 / 1.75}, abs=0.02)


def test_only_replies_are_learnt(mixed: Loader, batches: Batches) -> None:
    special = batches.tokenizer.special
    row = next(row for row in map(mixed.row, range(200)) if row.source == "chats.jsonl")
    assert len(row.documents) > 3, "packed"
    for number, document in enumerate(row.documents):
        inside = row.arrays["segment_ids"] == number
        targets, weights = row.arrays["targets"][inside], row.arrays["loss_weights"][inside]
        reply = targets[weights > 0].tolist()
        assert batches.tokenizer.decode(reply[:-1]).startswith("So: `x = ")
        assert reply[-1] == special["<|im_end|>"]
        assert len(document.ids) == len(targets) + 1


# ---- bad input ----


def refused(config: Config, batches: Batches, corpus: Path | str | None = None) -> str:
    with pytest.raises(UserError) as error:
        loading.make(config, batches.corpus if corpus is None else corpus, cache=batches.cache, workers=1)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_source_is_an_error(batches: Batches, tmp_path: Path) -> None:
    config = batches.config(SourceConfig(), SourceConfig(corpus=str(tmp_path / "none")))
    assert refused(config, batches) == f"data.sources.1: no corpus at {tmp_path / 'none'}: it has no manifest.json" + (
        " (was a build interrupted?)"
    )
    config = batches.config(SourceConfig(level="chat", corpus=str(tmp_path / "none.jsonl")))
    assert "none.jsonl" in refused(config, batches)
    assert "data.sources.0 is the experiment's own corpus" in refused(batches.config(), batches, "")


def test_a_missing_language_is_an_error(batches: Batches) -> None:
    assert "has no Rust" in refused(batches.config(SourceConfig(languages=("Rust",))), batches)


def test_a_vocabulary_that_does_not_fit_is_an_error(batches: Batches) -> None:
    config = batches.config()
    small = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, vocab_size=600),
        tokenizer=dataclasses.replace(config.tokenizer, vocab_size=600),
    )
    assert refused(small, batches) == (
        "the tokenizer has 700 pieces, and the model rows for 600: set tokenizer.vocab_size to 700"
    )


def test_a_row_too_short_is_an_error(batches: Batches) -> None:
    assert "data.seq_len=16 is too short" in refused(batches.config(seq_len=16), batches)


def test_a_format_that_cannot_is_an_error(batches: Batches) -> None:
    def family(name: str, *sources: SourceConfig, **data: object) -> Config:
        config = batches.config(*sources, **data)
        return dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, family=name))

    several = FimConfig(spans=EVERY_CHOOSER)
    assert "llama3 has no fill-in-the-middle format: set data.fim.rate to 0" in refused(family("llama3"), batches)
    assert "llama3 needs the special token" in refused(family("llama3", fim=FimConfig(rate=0.0)), batches)
    assert "starcoder2 has no format for several holes" in refused(family("starcoder2", fim=several), batches)
    config = family("granite", SourceConfig(level="repository"))
    assert "granite has no format for repositories: use sources of level file" in refused(config, batches)


def test_an_older_tokenizer_without_the_masks_is_an_error(batches: Batches) -> None:
    """Before the first batch, not in the middle of a run."""
    known = {name: i for name, i in batches.tokenizer.special.items() if not name.startswith("<|mask_")}
    older = dataclasses.replace(batches.tokenizer, special=known)
    config = batches.config(fim=FimConfig(spans=EVERY_CHOOSER))
    with pytest.raises(UserError, match=r"needs the special token <\|mask_0\|>"):
        loading.make(config, batches.corpus, older, cache=batches.cache)


def test_conversations_are_not_evaluated_on(batches: Batches, tmp_path: Path) -> None:
    source = SourceConfig(corpus=str(tmp_path / "chats.jsonl"), level="chat")
    with pytest.raises(UserError, match=r"data.sources.0 is conversations, which have no split 'validation'"):
        loading.make(batches.config(source), batches.corpus, split="validation", cache=batches.cache)


def test_hosts_must_share_evenly(mixed: Loader) -> None:
    for host, hosts, said in ((0, 3, "3 hosts cannot share"), (2, 2, "no host 2"), (-1, 2, "no host -1")):
        with pytest.raises(UserError, match=said):
            mixed.local_batch(0, host, hosts)


def test_nothing_comes_before_the_first_row(mixed: Loader) -> None:
    for ask in (lambda: mixed.batch(-1), lambda: mixed.row(-1), lambda: next(mixed.batches(start=-1))):
        with pytest.raises(UserError, match="0"):
            ask()


def test_the_shortest_row_that_is_named_is_enough(batches: Batches) -> None:
    said = refused(batches.config(seq_len=16, metadata=1.0), batches)
    shortest = int(said.split()[-3])
    assert f"{shortest} at least" in said
    assert f"{shortest} at least" in refused(batches.config(seq_len=shortest - 1, metadata=1.0), batches)
    assert batches.loader(seq_len=shortest, metadata=1.0).batch(0)["tokens"].shape == (8, shortest)


def test_a_file_where_a_corpus_is_meant_is_an_error(batches: Batches) -> None:
    config = batches.config(SourceConfig(corpus=str(batches.tokenizer_path)))
    assert "tokenizer.model is a file: conversations need level=chat" in refused(config, batches)

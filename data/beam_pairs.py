"""Similar pairs of documents found by an Apache Beam pipeline: the same bands and the same comparison as here."""

import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from etils import epath
from jaxtyping import Int64

from codelm.corpus_config import DedupConfig
from data import minhash
from data.duplicates import KEPT, FindPairs, Table, Verdicts


def on(options: Sequence[str], shared: str) -> FindPairs:
    """A finder on the runner that Beam's options name; its workers read and write the shared folder."""

    def find(table: Table, verdicts: Verdicts, config: DedupConfig) -> Iterator[Int64[np.ndarray, "E 2"]]:
        import apache_beam

        folder = epath.Path(shared)
        folder.mkdir(parents=True, exist_ok=True)
        chunks = list(_store(table, verdicts, folder))
        rows = minhash.rows_per_band(config.threshold, config.permutations)
        with apache_beam.Pipeline(argv=list(options)) as pipeline:
            _ = (
                pipeline
                | apache_beam.Create(chunks)
                | apache_beam.Reshuffle()
                | apache_beam.FlatMap(bands, rows)
                | apache_beam.GroupByKey()
                | apache_beam.FlatMap(pairs, config.threshold)
                | apache_beam.Distinct()
                | apache_beam.MapTuple(lambda a, b: f"{a} {b}")
                | apache_beam.io.WriteToText(str(folder / "pairs"))
            )
        for path in sorted(folder.glob("pairs-*")):
            if text := path.read_text():
                yield np.array(text.split(), np.int64).reshape(-1, 2)
        folder.rmtree()

    return find


def _store(table: Table, verdicts: Verdicts, folder: epath.Path) -> Iterator[str]:
    """The documents that are left, by number and sketch, in files that workers can read."""
    for n, chunk in enumerate(table.chunks()):
        items = chunk[verdicts.why[chunk] == KEPT]
        content = io.BytesIO()
        np.savez(content, items=items, sketches=table.sketches[items])
        path = folder / f"{n:06}.npz"
        path.write_bytes(content.getvalue())
        yield str(path)


def bands(path: str, rows: int) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """Each document under each of its bands, with its sketch."""
    stored = np.load(io.BytesIO(epath.Path(path).read_bytes()))
    items, sketches = stored["items"], stored["sketches"]
    for item, sketch, keys in zip(items.tolist(), sketches, minhash.band_keys(sketches, rows), strict=True):
        for key in keys.view(np.int64).tolist():
            yield key, (item, sketch.tobytes())


def pairs(bucket: tuple[int, Iterable[tuple[int, bytes]]], threshold: float) -> Iterator[tuple[int, int]]:
    """The similar pairs of documents that share a band."""
    members = sorted(bucket[1])
    if len(members) < 2:
        return
    items = np.array([item for item, _ in members])
    sketches = np.frombuffer(b"".join(sketch for _, sketch in members), np.uint8).reshape(len(members), -1)
    rows = np.arange(len(members))
    for a, b in minhash.similar_pairs(np.zeros(len(members), np.uint64), rows, sketches, threshold).tolist():
        yield int(items[a]), int(items[b])

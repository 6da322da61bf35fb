"""Parts on disk: whole or not there, checked on reading."""

from pathlib import Path

import numpy as np
import pytest
from etils import epath

from codelm.corpus_config import DedupConfig
from codelm.errors import UserError
from data import parts
from data.document import Document

CONFIG = DedupConfig(permutations=8)
DOCUMENTS = [
    Document(f"text {n}\nsnowman ☃ and\u2028separator\n", f"p{n}.py", "r", "Python", "MIT", "x@1", n, 2 * n)
    for n in range(5)
]


def write(folder: Path, key: str = "k") -> parts.Part:
    with parts.Writer(epath.Path(folder), key) as writer:
        for n, document in enumerate(DOCUMENTS):
            index = np.zeros((), parts.INDEX)
            index["size"] = n
            writer.keep(document, index, np.full(8, n, np.uint8))
        writer.drop("r", "bad.py", "binary", "")
        writer.tally.add("binary", "Python", "", 7)
    part = parts.find(epath.Path(folder), key)
    assert part
    return part


def test_what_is_written_is_read(tmp_path: Path) -> None:
    part = write(tmp_path)
    assert part.documents == 5
    assert list(part.read_documents()) == DOCUMENTS
    assert part.index()["size"].tolist() == list(range(5))
    assert part.signatures(CONFIG).tolist() == [[n] * 8 for n in range(5)]
    assert b"".join(part.read_drops()).count(b"\n") == 1
    assert part.tally.cells == {("binary", "Python", ""): 1}
    assert part.intact()


@pytest.mark.parametrize("name", ["documents", "drops", "index", "signatures"])
def test_damage_is_seen_and_named(tmp_path: Path, name: str) -> None:
    part = write(tmp_path)
    path = tmp_path / f"k.{name}"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not part.intact()
    read = {
        "documents": lambda: list(part.read_documents()),
        "drops": lambda: list(part.read_drops()),
        "index": part.index,
        "signatures": lambda: part.signatures(CONFIG),
    }
    with pytest.raises(UserError, match=f"k.{name} is corrupt"):
        read[name]()
    path.unlink()
    assert not part.intact()


def test_an_unfinished_part_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), parts.Writer(epath.Path(tmp_path), "k"):
        raise ZeroDivisionError
    assert parts.find(epath.Path(tmp_path), "k") is None
    write(tmp_path)
    (tmp_path / "k.part.json").write_text('{"version": 99}')
    assert parts.find(epath.Path(tmp_path), "k") is None
    (tmp_path / "k.part.json").write_text('{"vers')
    assert parts.find(epath.Path(tmp_path), "k") is None

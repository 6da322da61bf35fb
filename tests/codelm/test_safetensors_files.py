"""Files that are not what they say are refused by name; what is read and written is tested with the weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from codelm.errors import UserError
from codelm.safetensors_files import DTYPES, find_tensors, read_header, write_file

PARITY = Path(__file__).parent.parent / "golden" / "parity"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a fixture to spoil."""
    return Path(shutil.copytree(PARITY / "llama_gqa", tmp_path / "model"))


@pytest.mark.parametrize("code", DTYPES)
def test_the_reference_implementation_reads_and_writes_the_same(code: str, tmp_path: Path) -> None:
    values = {"b": np.arange(6).reshape(2, 3).astype(DTYPES[code]), "a": np.ones(5, DTYPES[code])}
    save_file(values, tmp_path / "theirs")
    write_file(tmp_path / "ours", {name: value.shape for name, value in values.items()}, DTYPES[code], values.values())
    for file in ("theirs", "ours"):
        ours, theirs = read_header(tmp_path / file), load_file(tmp_path / file)
        assert ours.keys() == theirs.keys() == values.keys()
        for name, value in values.items():
            assert ours[name].open().dtype == theirs[name].dtype == value.dtype
            assert ours[name].open().tobytes() == theirs[name].tobytes() == value.tobytes()


@pytest.mark.parametrize("size", [0, 5, 500, -1])
def test_a_truncated_file_is_named(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"model\.safetensors is truncated: [\d,]+ bytes"):
        find_tensors(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not safetensors at all", "is not a safetensors file"),
        ((4).to_bytes(8, "little") + b"nope", "its header is not JSON"),
        ((2).to_bytes(8, "little") + b"[]", "it has no header"),
        ((12).to_bytes(8, "little") + b'{"a":{"b":1}', "its header is not JSON"),
        ((13).to_bytes(8, "little") + b'{"a":{"b":1}}', "the header's entry for tensor a makes no sense"),
    ],
)
def test_a_file_of_another_kind_is_named(folder: Path, content: bytes, message: str) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=rf"model\.safetensors.*{message}"):
        find_tensors(folder)


def test_an_entry_larger_than_its_shape_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"shape":[96,32]', b'"shape":[96,31]'))
    with pytest.raises(UserError, match=r"entry for tensor .* makes no sense"):
        read_header(path)


def test_a_folder_without_safetensors_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has neither model.safetensors nor model.safetensors.index.json"):
        find_tensors(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"weight_map": {"a": "gone.safetensors"}}', "cannot read .*gone.safetensors: No such file"),
        ('{"weight_map": {"a": "part.safetensors"}}', "part.safetensors lacks tensor a, which .* says is in it"),
        ('{"weight_map": {"a": "../../secret"}}', "weight_map must name files of its own folder"),
        ('{"weight_map": 3}', "is not an index"),
        ("{", "is not an index"),
    ],
)
def test_a_wrong_index_is_named(folder: Path, index: str, message: str) -> None:
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=message):
        find_tensors(folder)

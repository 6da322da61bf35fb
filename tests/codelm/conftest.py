"""A small tokenizer learnt on a little of the standard library, shared by the tests of a session."""

import sysconfig
from pathlib import Path

import pytest

from codelm import text_files, tokenizer_training
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer import Tokenizer

STDLIB = Path(sysconfig.get_path("stdlib"))


@pytest.fixture(scope="session")
def proto() -> bytes:
    files = text_files.find([STDLIB / "json", STDLIB / "asyncio", STDLIB / "email"])
    return tokenizer_training.train((line for file in files for line in text_files.lines(file)), 2048)


@pytest.fixture(scope="session")
def tokenizer(proto: bytes) -> Tokenizer:
    return from_proto(proto)

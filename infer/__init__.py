"""Checkpoints to text. Imports `codelm` and no other room.

>>> engine = infer.Engine(codelm.load("path/to/a/run"))
>>> stream = engine.submit(infer.Request(ids, max_new_tokens=32))
>>> for event in stream:
...     print(event.text, end="", flush=True)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infer.constraints import Grammar
    from infer.engine import Engine, Options
    from infer.healing import Healing
    from infer.request import Drafts, Event, Request
    from infer.sampling import Sampling
    from infer.session import Session, Sessions

_MODULES = {
    "Drafts": "request",
    "Engine": "engine",
    "Event": "request",
    "Grammar": "constraints",
    "Healing": "healing",
    "Options": "engine",
    "Request": "request",
    "Sampling": "sampling",
    "Session": "session",
    "Sessions": "session",
}
__all__ = ["Drafts", "Engine", "Event", "Grammar", "Healing", "Options", "Request", "Sampling"]
__all__ += ["Session", "Sessions"]


def __getattr__(name: str) -> object:
    """Public names, imported when asked for: importing a room stays cheap."""
    if name not in _MODULES:
        raise AttributeError(f"module 'infer' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"infer.{_MODULES[name]}"), name)

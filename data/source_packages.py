"""The source `packages[:NAME,…]`: distributions installed where this Python runs, all or those named."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions

from codelm.errors import UserError, nearest
from data import source_tree
from data.document import Raw
from data.sources import Item, Unit


def units(spec: str, place: str, unit_bytes: int) -> Iterator[Unit]:
    installed = _installed()
    names = [name.strip() for name in place.split(",") if name.strip()]
    wanted = {_canonical(name) for name in names} if place else set(installed)
    for name in names:
        if _canonical(name) not in installed:
            raise UserError(f"no package {name!r} is installed; did you mean {nearest(name, list(installed))}?")
    for name in sorted(wanted):
        yield from _units_of(spec, name, installed[name], unit_bytes)


def _installed() -> dict[str, Distribution]:
    """By canonical name; of two of a name, the one that imports would find."""
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        if name := distribution.metadata["Name"]:
            found.setdefault(_canonical(name), distribution)
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _units_of(spec: str, name: str, distribution: Distribution, unit_bytes: int) -> Iterator[Unit]:
    root = str(distribution.locate_file(""))
    paths = [path.as_posix() for path in distribution.files or [] if _is_content(path.parts)]
    entries = source_tree.regular(root, filter(source_tree.worth_reading, paths))
    context = [("root", root), ("name", name), ("version", distribution.version)]
    context += [("licence", licence) for licence in licences(distribution)]
    for i, group in enumerate(source_tree.groups(entries, unit_bytes)):
        yield Unit(
            source=spec,
            name=f"{name}#{i}",
            items=tuple(entry.path for entry in group),
            size=sum(entry.size for entry in group),
            version=source_tree.version(group, distribution.version),
            context=tuple(context),
        )


def _is_content(parts: tuple[str, ...]) -> bool:
    """What the package is, rather than what is said of it."""
    return not any(part.endswith((".dist-info", ".egg-info")) for part in parts)  # setuptools carries some inside


def licences(distribution: Distribution) -> tuple[str, ...]:
    """SPDX expressions from the metadata, from its most exact field to its least."""
    from data.licences import normalise

    metadata = distribution.metadata
    if expression := metadata.get("License-Expression"):
        return (expression,)
    # Some put the whole licence there; its name is then elsewhere, or its first line.
    named = (metadata.get("License") or "").strip().partition("\n")[0].strip()
    if spdx := normalise(named):
        return (spdx,)
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    stated = [c.rpartition(" :: ")[2] for c in classifiers if c != "License :: OSI Approved" and "DFSG" not in c]
    return tuple(dict.fromkeys(normalise(name) or _unknown(name) for name in stated))


def _unknown(name: str) -> str:
    """A licence without an identifier of its own, so that it is not taken for none."""
    return "LicenseRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


def read(unit: Unit, max_bytes: int) -> Iterator[Item]:
    context = dict(unit.context)
    repository = f"pypi/{context['name']}"
    stated = tuple(value for key, value in unit.context if key == "licence")
    provenance = f"{context['name']}=={context['version']}"
    for found in source_tree.contents(context["root"], unit.items, repository, max_bytes):
        if isinstance(found, tuple):
            yield Raw(found[1], found[0], repository, licences=stated, provenance=provenance)
        else:
            yield found

"""How like what was written is to what stood there: by characters, tokens and identifiers. Nothing is run.

>>> scores("total = add(a, b)", "total = add(a, c)", "Python")["identifiers_f1"]
0.75

What a score is, is part of every suite that uses it: a change here is a new version of those.

- exact: the same, white space at the end aside.
- similarity: 1 - edits / characters of the longer one, as in training (train/infilling.py).
- bleu: BLEU-4 of one sentence (Papineni et al. 2002) over words and single marks; of two tokens and more, one is added
  to what matched and to what there is (Lin and Och 2004), so that a short text is not worth nothing.
- identifiers, identifiers_f1: whether identifiers are the same in the same order, and the F1 of their sets, as in
  CrossCodeEval (arXiv 2310.11248): words that are no keywords, outside strings and comments. Where neither text has
  any, they are the same.
"""

import keyword
import math
import re
from collections import Counter
from collections.abc import Sequence

from data import skeleton
from train.infilling import similarity

NAMES = ("exact", "similarity", "bleu", "identifiers", "identifiers_f1")
_LONGEST_GRAM = 4
_TOKEN = re.compile(r"\w+|[^\w\s]")
_IDENTIFIER = re.compile(r"(?<!\w)[^\W\d]\w*")
_STRING = r"""(?:\b[rbfuRBFU]{1,2})?(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
_PROSE = {"#": re.compile(rf"{_STRING}|#[^\n]*"), "//": re.compile(rf"{_STRING}|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)}
_JAVA = """
    abstract assert boolean break byte case catch char class const continue default do double else enum extends final
    finally float for goto if implements import instanceof int interface long native new package private protected
    public return short static strictfp super switch synchronized this throw throws transient try var void volatile
    while
"""
_C_SHARP = """
    abstract as base bool break byte case catch char checked class const continue decimal default delegate do double
    else enum event explicit extern finally fixed float for foreach goto if implicit in int interface internal is lock
    long namespace new null object operator out override params private protected public readonly ref return sbyte
    sealed short sizeof stackalloc static string struct switch this throw try typeof uint ulong unchecked unsafe ushort
    using virtual void volatile while
"""
_TYPESCRIPT = """
    break case catch class const continue debugger default delete do else enum export extends finally for function if
    implements import in instanceof interface let new package private protected public return static super switch this
    throw try typeof var void while with yield
"""
_MORE = """
    auto begin defer elif elsif end except fallthrough fi fn friend func fun go impl inline local match mod module mut
    not or and pass pub raise range register rescue select self signed template then trait type typedef typename union
    unless unsigned until use val when where
"""
# CrossCodeEval's four, and for all others every word of theirs and some more.
_KEYWORDS: dict[str, frozenset[str]] = {
    "Python": frozenset(keyword.kwlist) - {"True", "False"},
    "Java": frozenset(_JAVA.split()),
    "C#": frozenset(_C_SHARP.split()),
    **dict.fromkeys(("TypeScript", "TSX", "JavaScript"), frozenset(_TYPESCRIPT.split())),
}
_ANY = frozenset(_MORE.split()).union(*_KEYWORDS.values())


def scores(written: str, reference: str, language: str) -> dict[str, float]:
    """Every score by its name in NAMES."""
    found, wanted = identifiers(written, language), identifiers(reference, language)
    return {
        "exact": exact(written, reference),
        "similarity": similarity(written, reference),
        "bleu": bleu(written, reference),
        "identifiers": float(found == wanted),
        "identifiers_f1": f1(found, wanted),
    }


def exact(written: str, reference: str) -> float:
    return float(written.rstrip() == reference.rstrip())


def bleu(written: str, reference: str) -> float:
    found, wanted = _TOKEN.findall(written), _TOKEN.findall(reference)
    if not found or not wanted:
        return float(found == wanted)
    logs = 0.0
    for n in range(1, _LONGEST_GRAM + 1):
        grams = _grams(found, n)
        matched, total = (grams & _grams(wanted, n)).total(), grams.total()
        if n > 1:
            matched, total = matched + 1, total + 1
        if not matched:
            return 0.0
        logs += math.log(matched / total) / _LONGEST_GRAM
    brevity = min(0.0, 1 - len(wanted) / len(found))
    return math.exp(logs + brevity)


def _grams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1))


def identifiers(text: str, language: str) -> list[str]:
    """In their order, each as often as it is there."""
    code = _PROSE[skeleton.comments(language)].sub(" ", text)
    keywords = _KEYWORDS.get(language, _ANY)
    return [word for word in _IDENTIFIER.findall(code) if word not in keywords]


def f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Of the two as sets."""
    one, other = set(found), set(wanted)
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0

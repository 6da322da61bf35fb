"""Looking back, against a search through every place of every text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from infer.lookup import LONGEST, Lookup

IDS = st.lists(st.integers(0, 3), max_size=30)


def found(texts: list[list[int]], own: list[int], most: int) -> tuple[list[int], int]:
    """The longest end of the text that is somewhere before, the last of equals, and what follows there."""
    best, follows = 0, []
    for text in [*texts, own]:
        for end in range(1, len(text) + (text is not own)):
            matched = 0
            while matched < min(LONGEST, end, len(own)) and text[end - 1 - matched] == own[len(own) - 1 - matched]:
                matched += 1
            if matched and matched >= best:
                rest = list(text[end:])
                while text is own and len(rest) < most:  # what repeats goes on repeating
                    rest.append(rest[len(rest) - (len(own) - end)])
                best, follows = matched, rest[:most]
    return follows, best


@settings(max_examples=500)
@given(st.lists(IDS, max_size=3), IDS.filter(bool), IDS, st.integers(1, 9))
def test_the_last_of_the_longest_matches_is_continued(
    texts: list[list[int]], own: list[int], written: list[int], most: int
) -> None:
    lookup = Lookup(texts, own)
    for at in range(len(written) + 1):
        assert lookup.draft(most) == found(texts, own + written[:at], most)
        lookup.add(written[at : at + 1])

"""Hostile candidates. Each wants to pass a test whose answers it cannot know, or to harm who runs it.

Words in a source that are replaced: {SECRET}, the path of a file outside that holds the answer; {MARK}, what is in
the command lines of processes and the names of files that an attack leaves; {PID}, the process that has the pool;
{PORT}, where the host listens; {REACHED}, the answer that a source gives where it got through.
"""

from dataclasses import dataclass

ANSWERS = "assert answer(1) == '{ANSWER}'\nassert answer(2) == '{ANSWER}' * 2\n"
"""What no candidate can know: it is drawn for each run of the tests."""
REACHED = "assert answer(1) == '{REACHED}'\n"


@dataclass(frozen=True)
class Attack:
    name: str
    tries: str
    source: str
    tests: str = ANSWERS

    def filled(self, words: dict[str, str]) -> "Attack":
        source, tests = self.source, self.tests
        for word, value in words.items():
            source, tests = source.replace(f"{{{word}}}", value), tests.replace(f"{{{word}}}", value)
        return Attack(self.name, self.tries, source, tests)

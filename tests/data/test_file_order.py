"""The order of a repository's files: dependencies first, against an order that is made by looking at everything."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.file_order import beside_tests, by_imports, satisfied, subjects


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    """Of up to nine files, each imports any others."""
    count = draw(st.integers(0, 9))
    rows = [draw(st.sets(st.integers(0, count - 1))) - {number} for number in range(count)]
    return [sorted(row) for row in rows]


@st.composite
def circleless(draw: st.DrawFn) -> list[list[int]]:
    """Each imports some of those before it in some order."""
    places = draw(st.permutations(range(draw(st.integers(1, 9)))))
    rows: list[list[int]] = [[] for _ in places]
    for at, number in enumerate(places):
        rows[number] = sorted(draw(st.sets(st.sampled_from(places[:at])))) if at else []
    return rows


def by_looking_at_all(dependencies: list[list[int]], ties: list[str]) -> list[int]:
    left = list(range(len(dependencies)))
    order: list[int] = []
    while left:
        order.append(min(left, key=lambda number: (len(set(dependencies[number]) - set(order)), ties[number], number)))
        left.remove(order[-1])
    return order


def names(count: int, data: st.DataObject) -> list[str]:
    return data.draw(st.lists(st.sampled_from("abcdef"), min_size=count, max_size=count))


@given(graphs(), st.data())
def test_the_file_that_lacks_least_comes_next(dependencies: list[list[int]], data: st.DataObject) -> None:
    ties = names(len(dependencies), data)
    order = by_imports(dependencies, ties)
    assert order == by_looking_at_all(dependencies, ties)
    assert sorted(order) == list(range(len(dependencies)))


@given(circleless(), st.data())
def test_without_circles_every_file_comes_after_what_it_imports(rows: list[list[int]], data: st.DataObject) -> None:
    order = by_imports(rows, names(len(rows), data))
    place = {number: at for at, number in enumerate(order)}
    assert all(place[needed] < place[number] for number, row in enumerate(rows) for needed in row)
    assert satisfied(order, rows) == sum(1 for row in rows if row)


def test_ties_are_broken_by_what_is_given() -> None:
    assert by_imports([[], [], [0]], ["b", "a", "c"]) == [1, 0, 2]
    assert by_imports([[1], [0], [0, 1]], ["b", "a", "c"]) == [1, 0, 2]


def test_fifty_thousand_files_and_half_a_million_imports() -> None:
    count = 50_000
    rows = [sorted({number * step % count for step in range(7, 17)} - {number}) for number in range(count)]
    start = time.perf_counter()
    order = by_imports(rows, range(count))
    assert time.perf_counter() - start < 15  # 1 s; 50,000 looks at all of them, hours
    assert sorted(order) == list(range(count))


@given(graphs(), st.data())
def test_satisfied_counts_files_that_have_something_before_them(rows: list[list[int]], data: st.DataObject) -> None:
    window = data.draw(st.permutations(range(len(rows))))[: data.draw(st.integers(0, len(rows)))]
    by_pairs = [any(before in rows[number] for before in window[:at]) for at, number in enumerate(window)]
    assert satisfied(window, rows) == sum(by_pairs)


PAIRS = [
    ("tests/test_x.py", "src/pkg/x.py"),
    ("pkg/x_test.py", "pkg/x.py"),
    ("a/x_test.go", "a/x.go"),
    ("src/test/java/a/XTest.java", "src/main/java/a/X.java"),
    ("src/test/kotlin/TestX.kt", "src/main/java/X.java"),
    ("web/x.test.ts", "web/x.ts"),
    ("web/__tests__/x.spec.js", "web/x.tsx"),
    ("app/x.component.spec.ts", "app/x.component.ts"),
    ("spec/a/x_spec.rb", "lib/a/x.rb"),
    ("Core.Tests/XTests.cs", "Core/X.cs"),
    ("base/x_test.cc", "base/x.cc"),
    ("base/x_unittest.cc", "base/x.h"),
    ("tests/XTest.php", "src/X.php"),
    ("src/XSpec.scala", "src/X.scala"),
    ("test/x_test.exs", "lib/x.ex"),
    ("t/test-x.js", "x.mjs"),
]


@pytest.mark.parametrize(("test", "tested"), PAIRS)
def test_tests_are_known_by_their_names(test: str, tested: str) -> None:
    paths = [test, "y.py", tested, f"z/{'x' * 3}.{tested.rpartition('.')[2]}"]
    assert subjects(paths) == [2, None, None, None]
    assert beside_tests([0, 1, 2, 3], paths) == [1, 2, 0, 3]
    assert beside_tests([3, 2, 1, 0], paths) == [3, 2, 0, 1]


@pytest.mark.parametrize(
    "path",
    [
        "latest.py",
        "contest.go",
        "attest.java",
        "test.py",
        "tests/x.py",
        "testx.py",
        "x_test.go",
        "x_tester.py",
        "Testing.py",
    ],
)
def test_what_only_looks_like_a_test_stays(path: str) -> None:
    paths = [path, "x.py", "la.py", "con.go", "at.java", "py.py", "er.py", "ing.py"]
    assert beside_tests(range(8), paths) == list(range(8))


def test_of_several_files_of_a_name_the_nearest_is_tested() -> None:
    paths = [
        "a/src/deep/x.py",
        "b/src/deep/x.py",
        "b/src/x.py",
        "b/tests/deep/test_x.py",
        "b/tests/test_x.py",
        "tests/unit/a/deep/test_x.py",
        "one/test_y.py",  # as far from both
        "two/y.py",
        "three/y.py",
        "pkg/sub/z.py",
        "pkg/bus/z.py",
        "tests/sub/test_z.py",
        "m.py",
        "n/m.py",
        "tests/test_m.py",
    ]
    found = subjects(paths)
    assert {paths[test]: paths[of] for test, of in enumerate(found) if of is not None} == {
        "b/tests/deep/test_x.py": "b/src/deep/x.py",
        "b/tests/test_x.py": "b/src/x.py",
        "tests/unit/a/deep/test_x.py": "a/src/deep/x.py",
        "tests/sub/test_z.py": "pkg/sub/z.py",
        "tests/test_m.py": "m.py",
    }


def test_the_file_itself_goes_before_its_header() -> None:
    assert subjects(["include/x.h", "src/x.cc", "src/x_test.cc", "src/x.cpp.in"]) == [None, None, 1, None]


def test_several_tests_of_a_file_keep_their_order() -> None:
    paths = ["x_test.py", "x.py", "tests/test_x.py", "y.py"]
    assert beside_tests([2, 3, 0, 1], paths) == [3, 1, 2, 0]


def test_a_test_stays_where_what_it_tests_is_not_in_the_order() -> None:
    assert beside_tests([0, 2], ["test_x.py", "x.py", "y.py"]) == [0, 2]


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a/", "tests/a/", "b/c/"]), st.sampled_from(["x", "test_x", "x_test", "y"]))
    )
)
def test_nothing_is_lost_and_what_is_not_moved_keeps_its_order(files: list[tuple[str, str]]) -> None:
    paths = sorted({f"{folder}{name}.py" for folder, name in files})
    order = list(range(len(paths)))[::-1]
    moved = beside_tests(order, paths)
    tested = subjects(paths)
    assert sorted(moved) == sorted(order)
    assert [number for number in moved if tested[number] is None] == [n for n in order if tested[n] is None]
    for at, number in enumerate(moved):
        if (of := tested[number]) is not None:
            assert moved[at - 1] == of or tested[moved[at - 1]] == of

import pytest

from codelm import progress


def test_a_line_says_what_is_done_how_fast_and_how_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Bar("cleaning", 4000, "MB") as bar:
        bar.advance(1000, worked=False)
        now[0] += 5
        bar.advance(50)
        assert capsys.readouterr().err == "", "not yet"
        now[0] += 5
        bar.advance(50)
        assert capsys.readouterr().err == "cleaning: 1,100/4,000 MB, 10.0 MB/s, 4:50 left\n"
        now[0] += 1
        bar.advance(2900)
    assert capsys.readouterr().err == "cleaning: 4,000/4,000 MB, 272.7 MB/s\n"


@pytest.mark.parametrize(
    ("size", "said"), [(48_771, "49/49 kB"), (9_999_999, "10,000/10,000 kB"), (10_000_000, "10/10 MB"), (0, "0/0 kB")]
)
def test_bytes_are_told_in_a_unit_that_shows_something(
    size: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.Bar.of_bytes("cleaning", size) as bar:
        bar.advance(size)
    assert capsys.readouterr().err.startswith(f"cleaning: {said}, ")


def test_long_times_have_hours() -> None:
    assert progress.duration(59) == "0:59"
    assert progress.duration(3 * 3600 + 125) == "3:02:05"


def test_an_error_leaves_no_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), progress.Bar("x", 1, "MB"):
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""

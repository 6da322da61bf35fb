from train.clock import Clock, goodput


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_second_is_in_one_part() -> None:
    time = Time()
    clock = Clock(before=3.0, now=time)
    time.now += 2  # restart
    with clock.of("productive"):
        time.now += 10
        with clock.of("data"):
            time.now += 1
        with clock.of("checkpoint"):
            time.now += 4
            with clock.of("compile"):
                time.now += 5
        time.now += 6
    time.now += 7
    spent = clock.spent()
    assert spent == {
        "productive": 16,
        "compile": 5,
        "data": 1,
        "checkpoint": 4,
        "evaluation": 0,
        "restart": 12,
    }
    assert goodput(spent) == 16 / 38
    assert goodput(spent, lost=4.0) == 12 / 38

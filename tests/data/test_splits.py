import numpy as np

from data import splits


def choose(repositories: np.ndarray, share: float) -> np.ndarray:
    lots = splits.lot(repositories)
    return splits.held_out(repositories, int(lots.min()), int(lots.max()), share)


def test_about_the_share_of_repositories_is_held_out() -> None:
    repositories = np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64)
    assert abs(choose(repositories, 0.1).mean() - 0.1) < 3 * (0.1 * 0.9 / 20_000) ** 0.5


def test_all_files_of_a_repository_are_on_one_side() -> None:
    names = np.random.default_rng(1).integers(0, 2**64, 50, np.uint64)
    files = np.repeat(names, 7)
    chosen = choose(files, 0.3).reshape(50, 7)
    assert (chosen == chosen[:, :1]).all()
    assert 0 < chosen[:, 0].sum() < 50


def test_new_repositories_move_no_old_one() -> None:
    names = np.random.default_rng(2).integers(0, 2**64, 400, np.uint64)
    before, after = choose(names[:200], 0.2), choose(names, 0.2)[:200]
    # But for the two ends, which make sure that neither side is empty.
    assert (before != after).sum() <= 2


def test_two_repositories_are_enough_and_one_is_not_split() -> None:
    for seed in range(20):
        names = np.random.default_rng(seed).integers(0, 2**64, 2, np.uint64)
        assert sorted(choose(names, 0.02).tolist()) == [False, True]
        assert sorted(choose(names, 0.99).tolist()) == [False, True]
    assert choose(names[:1], 0.5).tolist() == [False]
    assert choose(names, 0.0).tolist() == [False, False]

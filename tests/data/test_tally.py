from data.tally import SAMPLES, Tally


def test_tallies_add_up_and_keep_the_same_samples_in_any_order() -> None:
    def tally(numbers: range) -> Tally:
        one = Tally()
        for n in numbers:
            one.add("size", "Go", "MIT", n)
            one.sample("size", "r", f"{n}.go", "", lambda: "text")
            one.counts["secret:AWS"] += 1
        return one

    whole, pieces = tally(range(90)), [tally(range(60, 90)), tally(range(60))]
    merged = Tally()
    for piece in pieces:
        merged.merge(Tally.from_json(piece.to_json()))
    assert merged == whole
    assert merged.cells["size", "Go", "MIT"] == 90
    assert merged.sizes["size", "Go", "MIT"] == sum(range(90))
    assert len(merged.samples["size"]) == SAMPLES
    assert len({sample.path for sample in merged.samples["size"]} - {f"{n}.go" for n in range(20)}) > 5, "not the first"

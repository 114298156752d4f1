"""The usual ways to select."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from growir.growth.budget import Cost
from growir.growth.policy import Candidate, Score
from growir.growth.select import best, filled, fitting, per_cost, ranked, shares, together, top, within


def score(name: str, gain: float, parameters: int = 1, units: int = 0) -> Score:
    return Score(Candidate(name, Cost(parameters, parameters, units, 0)), gain)


def names(found: Sequence[Score]) -> list[str]:
    return [each.candidate.name for each in found]


FOUR = [score("a", 0.1, 5), score("b", 0.4, 40), score("c", -0.2, 1), score("d", 0.4, 10)]
SCORES = st.lists(
    st.builds(
        score,
        st.text("abcdef", min_size=1, max_size=3),
        st.floats(-1, 1, allow_nan=False),
        st.integers(0, 9),
        st.integers(0, 3),
    ),
    max_size=9,
)


def test_the_first_of_equals_comes_first() -> None:
    assert names(ranked(FOUR)) == ["b", "d", "a", "c"]


def test_the_best_needs_a_gain() -> None:
    assert names(best(FOUR)) == ["b"]
    assert names(best(FOUR, least=0.4)) == []
    assert best([]) == []
    assert names(best([score("c", -0.2)], least=-1)) == ["c"]


def test_the_top_are_so_many_that_gain() -> None:
    assert names(top(FOUR, 2)) == ["b", "d"]
    assert names(top(FOUR, 9)) == ["b", "d", "a"]


def test_what_has_no_room_is_passed_over_for_the_next() -> None:
    assert names(within(FOUR, Cost(20, 20, 0, 0))) == ["d", "a"]
    assert names(within(FOUR, Cost(14, 20, 0, 0))) == ["d"]
    assert names(within([score("a", 1, 1, units=3), score("b", 0.5, 1, units=1)], Cost(9, 9, 2, 9))) == ["b"]


def test_what_shrinks_makes_room_for_what_comes_later() -> None:
    assert names(within([score("pruned", 1, -5), score("grown", 0.5, 7)], Cost(3, 3, 0, 0))) == ["pruned", "grown"]


def test_of_each_group_the_best_share() -> None:
    found = shares([score(n, g) for n, g in (("a1", 1), ("a2", 2), ("a3", 3), ("a4", 4), ("b1", 0.5))], first, 0.5)
    assert names(found) == ["a4", "a3", "b1"]
    assert names(shares([score("a1", 1), score("a2", 2)], first, 0.01)) == ["a2"]
    assert names(shares([score("a1", -1)], first, 1.0)) == []


def price(each: Score) -> object:
    return each.candidate.cost


def first(each: Score) -> str:
    return each.candidate.name[0]


def test_the_most_gain_for_each_parameter_comes_first() -> None:
    free = score("free", 0.01, 0)
    assert names(per_cost([*FOUR, free])) == ["free", "d", "a", "b", "c"]


@given(SCORES, st.integers(0, 20), st.integers(0, 5))
def test_what_is_within_a_room_costs_no_more(scores: list[Score], parameters: int, units: int) -> None:
    found = within(scores, Cost(parameters, parameters, units, 0))
    assert sum(each.candidate.cost.parameters for each in found) <= parameters
    assert sum(each.candidate.cost.units for each in found) <= units
    assert all(each.gain > 0 for each in found)


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_longest_beginning_that_fits_is_found_in_few_questions(count: int, most: int) -> None:
    asked: list[int] = []

    def fits(chosen: Sequence[Score]) -> bool:
        asked.append(len(chosen))
        return len(chosen) <= most

    scores = [score(str(k), 1) for k in range(count)]
    assert fitting(scores, fits) == scores[:most]
    assert 0 not in asked
    assert len(asked) <= 6


@given(SCORES, st.integers(0, 40), st.integers(0, 5), st.booleans())
def test_what_is_filled_is_what_one_by_one_would_take(
    scores: list[Score], parameters: int, units: int, alike: bool
) -> None:
    asked: list[int] = []

    def fits(chosen: Sequence[Score]) -> bool:
        asked.append(len(chosen))
        costs = [each.candidate.cost for each in chosen]
        return sum(cost.parameters for cost in costs) <= parameters and sum(cost.units for cost in costs) <= units

    one_by_one: list[Score] = []
    for each in scores:
        if fits([*one_by_one, each]):
            one_by_one.append(each)
    asked.clear()
    assert filled(scores, fits, price if alike else None) == one_by_one
    assert 0 not in asked


def test_of_those_that_are_alike_only_one_is_asked_for_in_vain() -> None:
    asked: list[int] = []

    def fits(chosen: Sequence[Score]) -> bool:
        asked.append(len(chosen))
        return sum(each.candidate.cost.parameters for each in chosen) <= 50

    scores = [score("large", 1, 30) for _ in range(500)] + [score("small", 0.5, 1) for _ in range(500)]
    found = filled(scores, fits, lambda each: each.candidate.name)
    assert names(found) == ["large"] + ["small"] * 20
    assert len(asked) < 25


def test_places_that_grow_alike_gain_each_its_own_best() -> None:
    scores = [
        score("a0", 0.3),
        score("a1", 0.9),
        score("b0", 0.5),
        score("b1", -0.4),
        score("b2", -1.0),
        score("c0", 0.6),
    ]
    found = together(scores, lambda s: s.candidate.name[0], lambda s: "ab" if s.candidate.name[0] in "ab" else "c")
    assert [names(each.scores) for each in found] == [["a1", "b0"], ["c0"], ["a0", "b1"]]
    assert [round(each.gain, 12) for each in found] == [1.4, 0.6, -0.1]


@given(SCORES)
def test_of_alike_places_as_many_are_offered_as_the_one_with_fewest_has(scores: list[Score]) -> None:
    found = together(scores, lambda s: s.candidate.name[0], lambda s: s.candidate.name[0] in "abc")
    taken = [id(each) for row in found for each in row.scores]
    assert len(taken) == len(set(taken))
    for kind in (True, False):
        places: dict[str, int] = {}
        for each in scores:
            if (each.candidate.name[0] in "abc") is kind:
                places[each.candidate.name[0]] = places.get(each.candidate.name[0], 0) + 1
        rows = [row for row in found if (row.scores[0].candidate.name[0] in "abc") is kind]
        assert len(rows) == min(places.values(), default=0)
        assert all({each.candidate.name[0] for each in row.scores} == set(places) for row in rows)
        assert [row.gain for row in rows] == sorted((row.gain for row in rows), reverse=True)

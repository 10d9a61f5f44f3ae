"""The levels outside a ladder must equal a dictionary, in its order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.depth.book import Book
from monitor.core.depth.far import SLACK, Far

WRITES = st.lists(
    st.tuples(st.integers(1, 12).map(float), st.sampled_from([0.0, 0.0, 1.0, 2.5])), max_size=400
)


@given(WRITES)
@settings(max_examples=60, deadline=None)
def test_far_levels_equal_a_dictionary_and_keep_its_order(writes):
    far, truth = Far(), {}
    for tick, quantity in writes:
        before = len(truth)
        if quantity:
            truth[tick] = quantity
        else:
            truth.pop(tick, None)
        assert far.write(tick, quantity) == len(truth) - before
        assert far.ends() == ((min(truth), max(truth)) if truth else None)
    ticks, quantities = far.arrays()
    assert list(zip(ticks.tolist(), quantities.tolist(), strict=True)) == list(truth.items())
    assert list(far.items()) == list(truth.items())
    assert len(far) == len(truth)


def test_cells_of_levels_gone_are_given_back():
    far = Far()
    for tick in range(1, 10_000):
        far.write(float(tick), 1.0)
        far.write(float(tick - 1), 0.0)
    assert len(far) == 1
    assert len(far._ticks) <= 2 + SLACK + 1


@given(
    st.lists(st.integers(1, 40_000), min_size=1, max_size=60, unique=True),
    st.integers(0, 1),
    st.tuples(st.integers(1, 40_000), st.integers(1, 40_000)),
)
@settings(max_examples=60, deadline=None)
def test_resting_levels_are_those_between_both_prices_wherever_they_lie(ticks, side, ends):
    book = Book(0.1)
    levels = sorted(((tick / 10, 1.0 + tick) for tick in ticks), reverse=side == 0)
    book.snapshot(*((levels, []), ([], levels))[side], depth=999, maintained=False)
    low, high = sorted(end / 10 for end in ends)
    price, limit = (high, low) if side == 0 else (low, high)
    prices, quantities = book.resting(side, price, limit)
    found = sorted(zip((prices * 10).round().tolist(), quantities.tolist(), strict=True))
    assert found == sorted((round(p * 10), q) for p, q in levels if low <= p <= high)

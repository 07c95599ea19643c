"""The checks of what people pass in: name, value and expectation are all in the message."""

import math

import pytest

from inforec.checks import require_choice, require_number


@pytest.mark.parametrize(
    "value, bounds",
    [
        (math.nan, {}),
        (math.inf, {}),
        ("3", {}),
        (None, {}),
        (True, {}),
        (0, {"above": 0}),
        (-1, {"at_least": 0}),
        (2, {"at_most": 1}),
        (1.0, {"integer": True}),
    ],
)
def test_a_bad_number_is_named(value, bounds):
    with pytest.raises(ValueError) as caught:
        require_number("speed", value, **bounds)
    assert str(caught.value).startswith(f"speed={value!r}: expected ")


@pytest.mark.parametrize(
    "value, bounds",
    [(0, {"at_least": 0}), (1, {"at_most": 1}), (1e-9, {"above": 0}), (3, {"integer": True})],
)
def test_bounds_belong_to_the_range_where_they_should(value, bounds):
    assert require_number("speed", value, **bounds) is None


def test_the_message_states_the_bounds():
    with pytest.raises(ValueError) as caught:
        require_number("k", 9, at_least=1, at_most=5, integer=True)
    assert str(caught.value) == "k=9: expected a whole number at least 1 and at most 5"


def test_a_misspelt_choice_is_told_the_nearest():
    with pytest.raises(ValueError, match=r"split='randon'.*random, given.*did you mean 'random'"):
        require_choice("split", "randon", ["random", "given"])
    assert require_choice("split", "given", ["random", "given"]) is None

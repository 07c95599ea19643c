"""Checks of what people pass in: each raises a ValueError that says name, value and expectation."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real


def require_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    integer: bool = False,
) -> None:
    """Raise ValueError unless ``value`` is a finite number (whole if ``integer``) within bounds."""
    kind = "a whole number" if integer else "a finite number"
    good = isinstance(value, Integral if integer else Real) and not isinstance(value, bool)
    if good and math.isfinite(value) and value > above and at_least <= value <= at_most:
        return
    bounds = [
        f"above {above:g}" if above > -math.inf else "",
        f"at least {at_least:g}" if at_least > -math.inf else "",
        f"at most {at_most:g}" if at_most < math.inf else "",
    ]
    expected = " and ".join([kind, *filter(None, bounds)]).replace(" and ", " ", 1)
    raise ValueError(f"{name}={value!r}: expected {expected}")


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``; the message names the nearest."""
    choices = list(choices)
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), choices, n=3, cutoff=0.4)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    raise ValueError(f"{name}={value!r}: expected one of {', '.join(choices)}{hint}")


class BadParameterError(ValueError):
    """A ValueError that a notebook shows as one sentence, without a traceback."""

    def _render_traceback_(self) -> list[str]:  # the name IPython looks for
        return [f"{type(self).__name__}: {self}"]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """In a notebook's first cell: show a ValueError or ConnectionError as one sentence."""
    try:
        yield
    except (ValueError, ConnectionError) as error:
        raise BadParameterError(str(error)) from None

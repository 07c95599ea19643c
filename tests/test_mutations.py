"""The lines that `tests/mutations.py` makes wrong are where it looks for them."""

from collections import Counter

import pytest

from mutations import MUTATIONS, ROOT, TESTS, source


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}: {m.what}")
def test_the_line_is_there_once(mutation):
    text = (ROOT / source(mutation)).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1
    assert mutation.old != mutation.new and "\n" not in mutation.old + mutation.new
    compile(text.replace(mutation.old, mutation.new), mutation.file, "exec")


def test_every_file_has_its_mutations():
    assert {mutation.file for mutation in MUTATIONS} == TESTS.keys()
    count = Counter(TESTS[mutation.file] for mutation in MUTATIONS)
    assert min(count.values()) >= 4 and count.total() >= 20

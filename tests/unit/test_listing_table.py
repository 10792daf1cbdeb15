"""Tables of names and facts, in terminals of every width."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from robustbench_lab.report.listing_table import GAP, ListingColumn, listing_table

COLUMNS = [
    ListingColumn("name"),
    ListingColumn("plugin", least=8, minor=1),
    ListingColumn("samples", right=True, minor=2),
    ListingColumn("what it is", least=10),
]


def shown(rows, width):
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, markup=False).print(listing_table(COLUMNS, rows, width))
    return stream.getvalue()


@given(
    names=st.lists(st.text("abc-", min_size=1, max_size=20), min_size=1, max_size=4),
    words=st.lists(st.text("xyz", min_size=1, max_size=9), min_size=1, max_size=20),
    width=st.integers(20 + GAP + 10, 160),
)
def test_names_stay_whole_and_no_text_is_lost_at_any_width_that_holds_them(names, words, width):
    text = shown([(name, "PLUGIN", "1000", " ".join(words)) for name in names], width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines[2:] if not line.startswith(" ")] == names
    assert sum(text.count(letter) for letter in "xyz") == len(names) * sum(map(len, words))
    assert "…" not in text


def test_columns_are_left_out_by_their_weight_and_only_where_there_is_no_room():
    rows = [("a-name-of-20-letters", "a-plugin", "1000", "what it is about")]
    found = {width: {title for title in ("samples", "plugin") if title in shown(rows, width)} for width in (80, 45, 35)}
    assert found == {80: {"samples", "plugin"}, 45: {"plugin"}, 35: set()}


def test_no_text_moves_the_cursor_or_is_read_as_markup():
    text = shown([("\x1b[2Jname", "[red]p[/red]", "1\r2", "a\nb\u202ec")], 100)
    assert not set("\x1b\r\u202e") & set(text)
    assert "[red]p[/red]" in text
    assert len(text.splitlines()) == 3

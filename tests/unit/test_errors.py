"""What is said of an error: one line, of whose end nothing is lost without a sign."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab.errors import LONGEST, LONGEST_OWN, UsageError, describe_error


def test_a_strangers_error_has_its_kind_and_our_own_its_message_alone() -> None:
    assert describe_error(ValueError("two\n  lines")) == "ValueError: two lines"
    assert describe_error(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert describe_error(UsageError("say --db")) == "say --db"


@given(st.text())
def test_it_is_one_line_that_ends_with_a_sign_where_it_is_cut(text: str) -> None:
    for error, most in ((ValueError(text), LONGEST), (UsageError(text), LONGEST_OWN)):
        words = " ".join(text.split())
        found = describe_error(error)
        assert "\n" not in found
        assert found.removeprefix("ValueError: ") in (words, words[: most - 1] + "…", "ValueError")


def test_long_messages_are_cut() -> None:
    assert describe_error(ValueError("x" * 301)) == "ValueError: " + "x" * 299 + "…"
    assert describe_error(UsageError("x" * 600)) == "x" * 600
    assert describe_error(UsageError("x" * 601)) == "x" * 599 + "…"

"""How components are written: every label can be read again, and every mistake is one line that points at the place."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab.catalog.component_syntax import Component, parse_component, parse_number
from robustbench_lab.errors import UsageError

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,20}", fullmatch=True)
KEYS = st.from_regex(r"p_[a-z0-9_]{0,8}", fullmatch=True)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    ),
    max_leaves=8,
)
COMPONENTS = st.builds(Component, NAMES, st.dictionaries(KEYS, VALUES, max_size=4))


def refusal(text: str) -> str:
    """What is said against a text; empty where it is read."""
    try:
        parse_component(text)
    except UsageError as error:
        return str(error)
    return ""


@given(COMPONENTS)
def test_a_label_parses_to_the_component_it_came_from(component: Component) -> None:
    parsed = parse_component(component.label)
    assert parsed == component
    assert repr(sorted(parsed.params.items())) == repr(sorted(component.params.items()))  # 1, 1.0 and True differ
    assert parsed.label == component.label


@given(COMPONENTS)
def test_the_order_of_parameters_does_not_change_the_label(component: Component) -> None:
    reordered = Component(component.name, dict(reversed(component.params.items())))
    assert reordered.label == component.label


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    assert len(refusal(text).splitlines()) <= 1


@given(st.text(alphabet="()[]{}'\"=,/-.:a1 \n\\", max_size=30))
def test_any_brackets_and_quotes_are_read_or_refused_in_one_line(inside: str) -> None:
    assert len(refusal(f"pgd({inside}").splitlines()) <= 1


@pytest.mark.parametrize(
    "name", ["pgd", "timm:resnet50.a1_in1k", "foolbox:LinfPGD", "torchvision:CIFAR10", "image-folder", "hf:org/net-2"]
)
def test_names_of_wrapped_libraries_need_no_quotes(name: str) -> None:
    assert parse_component(name) == Component(name, {})
    assert parse_component(f" {name} ( ) ") == Component(name, {})
    assert parse_component(f"{name}(k=1)") == Component(name, {"k": 1})


def test_fractions_are_read_where_the_field_writes_them() -> None:
    parsed = parse_component("x(eps=8/255, down=-8/255, up=-(8/-255), many=[1/4, 2], pair=(1/2, -0.5))")
    assert parsed.params == {
        "eps": 8 / 255,
        "down": -8 / 255,
        "up": 8 / 255,
        "many": [0.25, 2],
        "pair": (0.5, -0.5),
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("pgd(steps=50", "pgd(steps=50: missing ')'"),
        ("pgd(steps=[50", "missing ']'"),
        ("pgd(path='x", "missing closing quote"),
        ("pgd(steps=50))", "unmatched ')', at ')'"),
        ("pgd(50)", "'50' has no name: write key=value, such as steps=50"),
        ("pgd(*a)", "write key=value"),
        ("pgd(**a)", "write key=value"),
        ("pgd(a=1, a=2)", "'a' is given twice"),
        ("pgd(a={'k': 1, 'k': 2})", "'k' is given twice"),
        ("pgd(eps=8/0)", "'8/0' divides by zero"),
        ("pgd(eps=8/0.0)", "divides by zero"),
        ("pgd(eps=1e999)", "'1e999' is not a finite number"),
        ("pgd(eps=1e300/1e-300)", "not a finite number"),
        ("pgd(eps=nan)", "'nan' is no value"),
        ("pgd(eps=float('inf'))", "calls a function"),
        ("pgd(eps=__import__('os').sep)", "calls a function"),
        ("pgd(eps=1+1)", "'1+1' is no value"),
        ("pgd(eps=2**9)", "'2**9' is no value"),
        ("pgd(eps=1/2/3)", "'1/2/3' is no value"),
        ("pgd(eps='a'/2)", "is no value"),
        ("pgd(eps=True/2)", "'True/2' is no value"),
        ("pgd(eps=-True)", "'-True' is no value"),
        ("pgd(eps=1j)", "'1j' is no value"),
        ("pgd(eps=b'x')", "is no value"),
        ("pgd(eps={1, 2})", "is no value"),
        ("pgd(eps=[i for i in (1, 2)])", "is no value"),
        ("pgd(eps=f'{1}')", "is no value"),
        ("pgd(a={1.5: 2})", "keys of a dict"),
        ("pgd(a={**b})", "keys of a dict"),
        ("pgd(a=true)", "'true' is written True"),
        ("onnx(path=net.onnx)", "'net.onnx' is no value: write a number, 8/255, True, None, a list, or text in quotes"),
        ("onnx(path=/data/net.onnx)", "with text in quotes"),
        (r"onnx(path='C:\data')", "invalid escape sequence"),
        ("pgd steps=50", "'steps=50' cannot follow the name: write pgd(key=value, ...)"),
        ("pgd(a=1)(b=2)", "nothing can follow the closing ')'"),
        ("pgd(a=1).b", "nothing can follow the closing ')'"),
        ("(a=1)", "there is no name"),
        ("", "'': there is no name"),
        ("pgd(a=" + "[" * 300 + "]" * 300 + ")", "too many nested"),
    ],
)
def test_a_mistake_is_named_with_the_text_it_is_in(text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_component(text)
    message = str(caught.value)
    assert complaint in message
    assert len(message.splitlines()) == 1
    assert len(message) < 250


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_number_is_read_exactly(number: float) -> None:
    assert parse_number(repr(number)) == number


@pytest.mark.parametrize(
    ("text", "number"), [("8/255", 8 / 255), ("0.03", 0.03), ("1e-2", 0.01), (" 2 ", 2.0), ("-1/4", -0.25), (".5", 0.5)]
)
def test_numbers_are_read_as_the_field_writes_them(text: str, number: float) -> None:
    parsed = parse_number(text)
    assert parsed == number
    assert isinstance(parsed, float)


@pytest.mark.parametrize("text", ["", "inf", "nan", "1e999", "8/0", "1/2/3", "True", "'1'", "abs(1)", "9" * 400, "1,2"])
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number: write it as"):
        parse_number(text)


def test_numbers_of_a_component_are_finite() -> None:
    assert math.isfinite(parse_component("x(a=1e308)").params["a"])

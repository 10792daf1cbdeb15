"""Documents for scripts: each is valid under its schema in docs/schemas."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from robustbench_lab.records import Finding, Severity, Status
from robustbench_lab.report import json as json_format
from robustbench_lab.report import json_documents
from robustbench_lab.report.attack_comparison import compare_attacks
from robustbench_lab.testing.example_results import (
    example_gap,
    example_leaderboard,
    example_minimum_norm_result,
    example_records,
    example_result,
)

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.fixture(scope="module")
def board():
    return example_leaderboard(example_records(), title="Everything", description="Every kind of row.")


@pytest.fixture(scope="module")
def validators():
    schemas = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.schema.json")}
    registry = Registry().with_resources((name, Resource.from_contents(one)) for name, one in schemas.items())
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    return {
        name.removesuffix(".schema.json"): Draft202012Validator(one, registry=registry) for name, one in schemas.items()
    }


def documents(board):
    provenance = {"run_id": "r1", "environment": {"torch": "2.15"}}
    records = board.records
    yield "run", json_documents.run_document("r1", "rbl.db", records)
    yield "leaderboard", json_documents.leaderboard_document(board)
    yield "comparison", json_documents.comparison_document(compare_attacks(board))
    for record in records:
        yield "cell", json_documents.cell_document(record, provenance, samples=True)
        yield "cell", json_documents.cell_document(record, provenance)


def objects(document, place=()):
    """Every object in a document but those whose keys are free, with the way to it."""
    if isinstance(document, dict):
        if not place or place[-1] not in ("params", "provenance", "environment"):
            if place[-1:] != ("metrics",):
                yield document
            for key, value in document.items():
                yield from objects(value, (*place, key))
    elif isinstance(document, list):
        for value in document:
            yield from objects(value, (*place, "[]"))


def test_every_document_is_valid_json_under_its_schema(board, validators):
    for name, document in documents(board):
        read = json.loads(json.dumps(document, allow_nan=False))
        assert [error.message for error in validators[name].iter_errors(read)] == []
    assert json.loads(json_format.render(board)) == json.loads(json.dumps(json_documents.leaderboard_document(board)))


def test_the_schemas_forbid_unknown_keys_and_require_known_ones_at_every_depth(validators):
    finding = Finding("zero-gradient", Severity.SUSPECT, "the gradient is zero", 1.0)
    records = [
        example_result([True], findings=(finding,)),
        example_gap(Status.FAILED, "boom", attack="fgsm", samples=1),
    ]
    small = example_leaderboard(records)
    for name in ("run", "leaderboard", "comparison", "cell"):
        document = json.loads(json.dumps(next(one for kind, one in documents(small) if kind == name)))
        for inner in objects(document):
            inner["surprise"] = 1
            assert not validators[name].is_valid(document)
            del inner["surprise"]
            for key in [key for key in inner if key != "outcomes"]:
                value = inner.pop(key)
                assert not validators[name].is_valid(document), key
                inner[key] = value
        assert validators[name].is_valid(document)


def test_the_schemas_allow_metrics_for_finished_cells_only(board, validators):
    document = json_documents.run_document("r1", "rbl.db", [example_gap(Status.FAILED, "boom")])
    assert validators["run"].is_valid(document)
    document["cells"][0]["metrics"] = {"robust_accuracy": {"value": 1.0, "low": 0.9, "high": 1.0}}
    assert not validators["run"].is_valid(document)


def test_a_cell_has_every_key_that_scripts_rely_on():
    record = example_result([True, False, False], clean=[True, True, False])
    document = json_documents.run_document("r1", "rbl.db", [record])["cells"][0]
    promised = """cell_id status reason task model defense dataset attack objective norm eps seed samples metrics
        forward_per_sample backward_per_sample wall_seconds verdict"""
    assert set(promised.split()) <= set(document)
    assert document["samples"] == 3
    assert document["eps"] == 8 / 255
    assert document["metrics"]["clean_accuracy"]["value"] == pytest.approx(2 / 3)
    assert set(document["metrics"]["robust_accuracy"]) == {"value", "low", "high"}


def test_the_samples_of_a_cell_are_listed_with_null_where_nothing_broke_them():
    record = example_result([True, False, False], clean=[True, True, False])
    document = json_documents.cell_document(record, {}, samples=True)
    assert [one["sample_id"] for one in document["outcomes"]] == ["digits-0", "digits-1", "digits-2"]
    assert [one["distance"] for one in document["outcomes"]] == [None, pytest.approx(8 / 255), 0.0]
    assert [(one["clean_correct"], one["robust"]) for one in document["outcomes"]] == [
        (True, True),
        (True, False),
        (False, False),
    ]
    assert "outcomes" not in json_documents.cell_document(record, {})


def test_a_minimum_norm_cell_has_bounds_at_other_budgets_and_others_have_none(validators):
    record = example_minimum_norm_result([0, 0.02, 0.1, 0.15, 9.0, None], clean=[False] + [True] * 5, eps=0.1)
    document = json.loads(json.dumps(json_documents.cell_document(record, {}), allow_nan=False))
    assert validators["cell"].is_valid(document)
    assert document["distances"]["median"] == pytest.approx(0.15)
    shares = {one["eps"]: one["share"]["value"] for one in document["distances"]["robust_at"]}
    expected = {0.025: 4 / 6, 0.05: 4 / 6, 0.1: 3 / 6, 0.2: 2 / 6, 0.4: 2 / 6}
    assert shares == pytest.approx(expected)
    assert shares[0.1] == document["metrics"]["robust_accuracy"]["value"]
    assert json_documents.cell_document(example_result([True, False]), {})["distances"] is None


def test_numbers_that_json_lacks_become_null():
    given = {"nan": math.nan, "inf": [math.inf, 1.5], "path": Path("a"), "pair": (1, None), "np": np.float64(0.5)}
    assert json_documents.plain_json(given) == {
        "nan": None,
        "inf": [None, 1.5],
        "path": "a",
        "pair": [1, None],
        "np": 0.5,
    }


def test_a_row_for_data_frames_is_flat():
    row = json_documents.cell_row(example_result([True, False]))
    assert row["robust_accuracy"] == 0.5
    assert {"robust_accuracy_low", "robust_accuracy_high"} <= set(row)
    assert not any(isinstance(value, dict | list) for value in row.values())

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rbl_reference import scikit_learn_data
from rbl_reference.digits import (
    CLASSES,
    TEST_PER_CLASS,
    Digits,
    Split,
    hash_order,
    revision_of,
    split_indices,
)
from robustbench_lab.errors import UsageError

labels_of_any_size = st.lists(st.integers(0, CLASSES - 1), max_size=1200).map(lambda values: np.array(values, np.uint8))


@given(st.integers(0, 2000))
def test_the_hash_order_is_a_permutation(count: int) -> None:
    assert sorted(hash_order(count)) == list(range(count))


@given(labels_of_any_size)
def test_the_splits_are_disjoint_complete_and_hold_the_first_of_each_class_as_test(labels: np.ndarray) -> None:
    splits = split_indices(labels)
    assert sorted(splits["test"] + splits["train"]) == list(range(len(labels)))
    for label in range(CLASSES):
        in_order = [index for index in hash_order(len(labels)) if labels[index] == label]
        assert [index for index in splits["test"] if labels[index] == label] == in_order[:TEST_PER_CLASS]


def test_the_test_split_has_450_samples_45_of_each_class_and_the_train_split_the_other_1347() -> None:
    test, train = Digits(), Digits(split="train")
    assert (len(test.sample_ids), len(train.sample_ids)) == (450, 1347)
    assert set(test.sample_ids) | set(train.sample_ids) == {f"digits/{index:04d}" for index in range(1797)}
    assert torch.bincount(test.load(range(450)).targets).tolist() == [45] * 10


def test_no_image_of_the_test_split_is_in_the_train_split() -> None:
    images, labels = scikit_learn_data.digits()
    splits = split_indices(labels)
    train = {images[index].tobytes() for index in splits["train"]}
    assert not any(images[index].tobytes() in train for index in splits["test"])


def test_the_first_samples_mix_the_classes() -> None:
    assert len(set(Digits().load(range(50)).targets.tolist())) == 10


# A change of either value changes every stored result on digits: raise the spec's version with it.
@pytest.mark.parametrize(
    ("split", "revision"),
    [
        ("test", "4c329a842001c5d8d7cd3e3effd9b5afc793acbb730adee1281c58a47bbe8eb0"),
        ("train", "82d825483d95cdba404bf882484b36210664625f0d8ca20dc23f2e0738052087"),
    ],
)
def test_the_splits_are_these_and_no_others(split: Split, revision: str) -> None:
    assert Digits(split=split).revision == revision


def test_the_revision_changes_with_an_image_a_label_the_order_and_the_split() -> None:
    images, labels = scikit_learn_data.digits()
    indices = [5, 3, 8]
    other_image, other_label = images.copy(), labels.copy()
    other_image[3, 0, 0] += 1
    other_label[8] += 1
    revisions = {
        revision_of("test", indices, images, labels),
        revision_of("test", indices, other_image, labels),
        revision_of("test", indices, images, other_label),
        revision_of("test", [3, 5, 8], images, labels),
        revision_of("train", indices, images, labels),
    }
    assert len(revisions) == 5


def test_inputs_are_images_within_the_bounds_in_the_order_asked_for() -> None:
    data = Digits()
    samples = data.load([7, 0, 449])
    assert samples.inputs.shape == (3, 1, 8, 8)
    assert (samples.inputs.dtype, samples.targets.dtype) == (torch.float32, torch.int64)
    images, labels = scikit_learn_data.digits()
    for position, asked in enumerate([7, 0, 449]):
        index = int(data.sample_ids[asked].removeprefix("digits/"))
        assert np.array_equal(samples.inputs[position, 0].numpy() * 16, images[index])
        assert samples.targets[position] == labels[index]
    everything = data.load(range(450)).inputs
    assert (everything.min().item(), everything.max().item()) == (data.bounds.low, data.bounds.high)


def test_samples_are_copies_so_that_changing_them_leaves_the_data_alone() -> None:
    data = Digits()
    data.load([0]).inputs.fill_(0.5)
    assert not bool((data.load([0]).inputs == 0.5).all())


def test_an_unknown_split_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"no split 'trian'\. Did you mean 'train'\?"):
        Digits(split="trian")  # type: ignore[arg-type]


def test_what_is_read_of_scikit_learn_is_what_it_would_load_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = scikit_learn_data.digits()
    photographs = [scikit_learn_data.photograph(name) for name in scikit_learn_data.PHOTOGRAPHS]
    monkeypatch.setattr(scikit_learn_data, "_folder", lambda: Path("nowhere"))
    loaded_images, loaded_labels = scikit_learn_data.digits()
    assert np.array_equal(images, loaded_images)
    assert np.array_equal(labels, loaded_labels)
    for photograph, name in zip(photographs, scikit_learn_data.PHOTOGRAPHS, strict=True):
        assert np.array_equal(photograph, scikit_learn_data.photograph(name))

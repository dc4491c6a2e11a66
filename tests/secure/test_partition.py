from __future__ import annotations

import hashlib
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prism_secure.config.sections import PartitionScheme
from prism_secure.data.partition import partition
from prism_secure.errors import ConfigError

SCHEMES = get_args(PartitionScheme)

LABELS = np.repeat(np.arange(10), 100)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=8, max_size=80),
    clients=st.integers(1, 4),
    scheme=st.sampled_from(SCHEMES),
    seed=st.integers(0, 2**64),
)
def test_every_image_goes_to_exactly_one_client_and_no_client_is_empty(labels, clients, scheme, seed):
    parts = partition(labels, clients, scheme, seed=seed, shards_per_client=2, dirichlet_alpha=5.0)
    assert sorted(np.concatenate(parts.indices).tolist()) == list(range(len(labels)))
    assert min(parts.sizes) >= 1
    assert len(parts.sizes) == clients
    for mine, counts in zip(parts.indices, parts.class_counts, strict=True):
        assert mine.dtype == np.int64
        assert (np.diff(mine) > 0).all()
        assert counts.tolist() == np.bincount(np.asarray(labels)[mine], minlength=len(counts)).tolist()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_same_seed_same_parts_and_another_seed_other_parts(scheme):
    first, again, other = (partition(LABELS, 10, scheme, seed=seed).indices for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("scheme", "digest"),
    [("iid", "1b851f3183516ef0"), ("shards", "84768c08b8c4aa38"), ("dirichlet", "d9cac233a3052d62")],
)
def test_parts_stay_what_they_were_in_earlier_releases(scheme, digest):
    parts = partition(LABELS, 10, scheme, seed=0)
    stream = b"|".join(part.astype("<i8").tobytes() for part in parts.indices)
    assert hashlib.sha256(stream).hexdigest()[:16] == digest


def test_iid_sizes_differ_by_one_at_most_and_classes_mix():
    parts = partition(LABELS[:-3], 10, seed=3)
    assert sum(parts.sizes) == 997
    assert max(parts.sizes) - min(parts.sizes) == 1
    assert (parts.class_counts > 0).all()


@pytest.mark.parametrize("per_client", [1, 2, 4])
def test_a_client_of_k_shards_sees_at_most_k_classes_when_shards_divide_classes(per_client):
    parts = partition(LABELS, 10, "shards", shards_per_client=per_client)
    assert set(parts.sizes) == {100}
    assert (parts.class_counts > 0).sum(1).max() <= per_client


def test_which_images_of_a_class_share_a_shard_is_random():
    parts = partition(LABELS, 20, "shards", shards_per_client=1)
    assert set(parts.sizes) == {50}
    # Cut from the labels alone, a shard would be 50 images in a row.
    assert min(int((np.diff(part) > 1).sum()) for part in parts.indices) > 5


def test_small_dirichlet_alpha_concentrates_classes_and_large_alpha_spreads_them():
    skewed = partition(LABELS, 10, "dirichlet", dirichlet_alpha=0.1).class_counts
    even = partition(LABELS, 10, "dirichlet", dirichlet_alpha=1000.0).class_counts
    assert skewed.max(0).mean() > 50
    assert even.max(0).mean() < 20


def test_dirichlet_draws_again_until_nobody_is_without_an_image(monkeypatch):
    arguments = {"clients": 10, "scheme": "dirichlet", "dirichlet_alpha": 0.05, "seed": 3}
    with monkeypatch.context() as patch:
        patch.setattr("prism_secure.data.partition._REDRAWS", 1)
        with pytest.raises(ConfigError, match="no Dirichlet"):
            partition(LABELS, **arguments)
    assert min(partition(LABELS, **arguments).sizes) >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"clients": 0},
            "federation.clients must be between 1 and the number of images to train with, 1000; got 0",
        ),
        ({"clients": 1001}, "got 1001"),
        ({"scheme": "idd"}, "unknown partition 'idd', expected one of iid, shards, dirichlet"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"scheme": "shards", "shards_per_client": 101}, "shards_per_client must be between 1 and 100"),
        ({"scheme": "shards", "shards_per_client": 0}, "got 0"),
        ({"scheme": "dirichlet", "dirichlet_alpha": 0.0}, "dirichlet_alpha must be a positive number"),
        ({"scheme": "dirichlet", "dirichlet_alpha": float("nan")}, "got nan"),
        ({"scheme": "dirichlet", "dirichlet_alpha": 1e-3, "clients": 20}, "raise dirichlet_alpha"),
    ],
)
def test_impossible_arguments_say_what_would_be_possible(arguments, message):
    with pytest.raises(ConfigError) as caught:
        partition(LABELS, **{"clients": 10, **arguments})
    assert message in str(caught.value)


@pytest.mark.parametrize("labels", [[[0, 1]], [0.5, 1.0], [-1, 0]])
def test_labels_that_are_no_labels_are_refused(labels):
    with pytest.raises(ConfigError, match="labels must be non-negative integers"):
        partition(labels, 1)


@settings(max_examples=80, deadline=None)
@given(
    images=st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 12)), min_size=30, max_size=90),
    clients=st.integers(1, 4),
    scheme=st.sampled_from(SCHEMES),
    seed=st.integers(0, 2**64),
)
def test_all_images_of_a_person_are_with_one_client(images, clients, scheme, seed):
    """With two clients a person would be two persons to the clip that protects one."""
    labels, persons = np.array(images).T
    assume(len(set(persons)) >= 8)
    parts = partition(
        labels, clients, scheme, seed=seed, shards_per_client=2, dirichlet_alpha=5.0, persons=persons
    )
    assert sorted(np.concatenate(parts.indices).tolist()) == list(range(len(labels)))
    held = [set(persons[mine].tolist()) for mine in parts.indices]
    assert parts.persons == tuple(map(len, held))
    assert min(parts.persons) >= 1
    assert sum(parts.persons) == len(set(persons))
    assert parts.class_counts.sum() == len(labels)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_persons_of_one_image_each_are_dealt_out_as_images_are(scheme):
    alone = partition(LABELS, 10, scheme, seed=4)
    parts = partition(LABELS, 10, scheme, seed=4, persons=5 + np.arange(len(LABELS)))
    assert all(np.array_equal(a, b) for a, b in zip(alone.indices, parts.indices, strict=True))
    assert (alone.persons, parts.persons) == (None, alone.sizes)


def test_who_is_with_whom_by_chance_does_not_depend_on_how_many_images_anybody_has():
    """Or one person's images would move all others."""
    few = np.repeat(np.arange(12), 3)
    many = np.concatenate([few, np.full(50, 4)])
    first, other = (partition(np.zeros(len(who), int), 3, seed=2, persons=who).indices for who in (few, many))
    for mine, theirs in zip(first, other, strict=True):
        assert set(few[mine]) == set(many[theirs])


def test_a_person_counts_as_of_the_class_that_most_images_have():
    """Twenty persons, each with one stray image of class 9: shards by class see the others."""
    persons = np.repeat(np.arange(20), 4)
    labels = np.repeat(np.arange(20) // 10, 4)
    labels[::4] = 9
    parts = partition(labels, 2, "shards", shards_per_client=1, persons=persons)
    assert sorted(counts[:2].tolist() for counts in parts.class_counts) == [[0, 30], [30, 0]]
    even = partition([1, 0, 3, 2], 2, "shards", shards_per_client=1, persons=[0, 0, 1, 1])
    assert sorted(set(mine.tolist()) == {0, 1} for mine in even.indices) == [False, True]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_fewer_persons_than_clients_are_refused(scheme):
    persons = np.arange(len(LABELS)) % 9
    with pytest.raises(ConfigError, match=r"between 1 and the number of persons to train with, 9; got 10"):
        partition(LABELS, 10, scheme, persons=persons)
    with pytest.raises(ConfigError, match=r"between 1 and 1 \(9 persons, 5 clients\), got 2"):
        partition(LABELS, 5, "shards", shards_per_client=2, persons=persons)
    with pytest.raises(ConfigError, match=r"gave each of 9 clients one person"):
        partition(0 * LABELS, 9, "dirichlet", dirichlet_alpha=0.01, persons=persons)


@pytest.mark.parametrize("persons", [[0, 1], [0.5] * 1000, np.zeros((1000, 1), int)])
def test_persons_that_do_not_fit_are_refused(persons):
    with pytest.raises(ConfigError, match=r"persons must be integers \(1000,\), got"):
        partition(LABELS, 2, persons=persons)

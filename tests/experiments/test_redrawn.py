"""Populations that train on the next of their clients' images."""

import numpy as np
import pytest

import floral as fl


@pytest.fixture
def redrawn(imported):
    return imported("redrawn")


@pytest.fixture
def populations():
    """Forty images of each of three clients, a quarter for tests: three in ten kept, and all."""
    source = fl.data.arrays(np.arange(120.0)[:, None], np.arange(120) % 4)
    few, whole = (
        fl.data.federate(
            source, partition=fl.data.iid(clients=3), split={"test": 0.25}, keep=keep, seed=1
        )
        for keep in (0.3, 1.0)
    )
    return few, whole


def images(dataset, split="train"):
    return [set(client[split]["x"].ravel()) for client in map(dataset.client, range(3))]


def test_the_first_part_is_the_population_itself(redrawn, populations):
    few, whole = populations
    assert images(redrawn.next_images(few, whole, 0)) == images(few)


def test_parts_are_apart_as_many_and_a_clients_own(redrawn, populations):
    few, whole = populations
    parts = [images(redrawn.next_images(few, whole, part)) for part in range(3)]
    for client, own in enumerate(images(whole)):
        drawn = [part[client] for part in parts]
        assert [len(some) for some in drawn] == [9, 9, 9]
        assert len(set.union(*drawn)) == 27
        assert set.union(*drawn) <= own


def test_tests_are_left_alone(redrawn, populations):
    few, whole = populations
    assert images(redrawn.next_images(few, whole, 2), "test") == images(few, "test")


def test_too_many_parts_are_refused(redrawn, populations):
    with pytest.raises(ValueError, match="client 0 has no part 3 of its 30 images"):
        redrawn.next_images(*populations, 3)

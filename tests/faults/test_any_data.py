"""Whatever is given to a door of the data, a right population or one sentence comes out."""

import datetime
import decimal

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import floral as fl
from floral.errors import FloralError

WORDS = [None, "", "a", "é日", "None", b"a", b"\xff", pandas.NA, pandas.NaT, (1,), [1, 2], {}, {1}]
NUMBERS = [np.nan, -np.inf, True, 0, 1, -1, 7, 2**31, 2**63, 10**400, 1e39, 1e-320, 0.5, 1j]
OBJECTS = [np.ma.masked, decimal.Decimal("NaN"), datetime.date(2020, 1, 1), np.datetime64("NaT")]
ODD = st.sampled_from([*WORDS, *NUMBERS, *OBJECTS, object, np.zeros(2), np.zeros((2, 2))])
TYPES = "? b h i q B H I Q e f d g F D S2 U2 M8[s] m8[s] >f4 >i8 O"
DTYPES = st.sampled_from(TYPES.split(" "))
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)


@st.composite
def columns(draw):
    """An array or a list of any type, often one that can be trained on."""
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return draw(st.lists(ODD, max_size=4))
    if kind == 1:
        return draw(ODD)
    if kind == 2:
        size = draw(st.integers(0, 4))
        held = np.empty(size, object)
        for place in range(size):
            held[place] = draw(ODD)
        return draw(st.sampled_from([held, pandas.Series(held), np.ma.masked_array(held)]))
    if kind == 3:
        dtype = np.dtype(draw(DTYPES))
        if dtype.kind == "O":
            return np.full(draw(SHAPES), draw(st.sampled_from(NUMBERS)), object)
        return draw(arrays_of.arrays(dtype, draw(SHAPES)))
    return draw(arrays_of.arrays(np.float64, (3,), elements=st.integers(0, 2).map(float)))


def is_right(population):
    """Everything that training relies on."""
    assert isinstance(population.describe(), str)
    assert len(population.fingerprint) == 64
    for split in population.splits.values():
        x, y = split.examples["x"], split.examples["y"]
        assert len(x) == len(y) == split.offsets[-1]
        for array in (x, y):
            assert array.dtype.kind in "biuf"
            assert array.dtype.itemsize <= 4
            assert np.isfinite(array[:]).all()
        if population.num_classes is not None:
            assert y.dtype.kind in "iu"
            assert (y >= 0).all()
            assert (y < population.num_classes).all()


DOORS = {
    "arrays": lambda x, y, who, n: fl.data.federate(
        fl.data.arrays(x, y, fields={"who": who}, num_classes=n), partition=fl.data.natural("who")
    ),
    "iid": lambda x, y, who, n: fl.data.federate(
        fl.data.arrays(x, y, num_classes=n), partition=fl.data.iid(1), split={"test": 0.3}
    ),
    "table": lambda x, y, who, n: fl.data.federate(
        fl.data.from_dataset({"image": x, "label": y, "who": who}, client="who", num_classes=n),
        partition=fl.data.natural("who"),
    ),
    "from_clients": lambda x, y, who, n: fl.data.from_clients(
        {"a": {"train": {"x": x, "y": y}}, "b": {"train": {"x": x, "y": y}}},
        num_classes=n,
        traits={"t": who},
    ),
    "federated": lambda x, y, who, n: fl.data.federated(
        {"x": x, "y": y}, {"train": [who]}, num_classes=n
    ),
    "from_flat": lambda x, y, who, n: fl.data.from_flat(
        {"train": {"x": x, "y": y}}, {"train": who}, num_classes=n
    ),
    "clients": lambda x, y, who, n: fl.data.from_clients([{"train": x}, y], unseen=who),
    "unseen": lambda x, y, who, n: fl.data.from_clients(
        [{"train": {"x": [[0.0]], "y": [0]}}] * 2, unseen=who, traits={"cluster": x}
    ),
    "names": lambda x, y, who, n: fl.data.federated(
        {"x": [[0.0], [1.0]], "y": [0, 1]}, {"train": [[0], [1]]}, client_names=who
    ),
    "partition": lambda x, y, who, n: fl.data.federate(
        fl.data.arrays([[0.0], [1.0]], [0, 1]), partition=who
    ),
}


def check_door(name, x, y, who, num_classes):
    """The door's population is right, or it says one sentence."""
    try:
        made = DOORS[name](x, y, who, num_classes)
    except FloralError as error:
        said = str(error)
    else:
        return is_right(made)
    assert said
    assert "\n" not in said


ANY = {
    "x": columns(),
    "y": columns(),
    "who": columns(),
    "num_classes": st.sampled_from([None, 1, 3, 0, -1, 2.5, True]),
}
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.filterwarnings("ignore")
@given(**ANY)
@settings(max_examples=60, derandomize=True, **QUIET)
def test_a_door_gives_a_right_population_or_one_sentence(name, x, y, who, num_classes):
    check_door(name, x, y, who, num_classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", DOORS)
@pytest.mark.filterwarnings("ignore")
@given(**ANY)
@settings(max_examples=2000, **QUIET)
def test_two_thousand_of_each_do_too(name, x, y, who, num_classes):
    check_door(name, x, y, who, num_classes)


@pytest.mark.filterwarnings("ignore")
@given(clients=columns())
@settings(max_examples=200, derandomize=True, **QUIET)
def test_clients_are_found_or_refused_whatever_is_asked(clients):
    one = {"train": {"x": [[0.0]], "y": [0]}}
    for population in (
        fl.data.from_clients([one] * 3),
        fl.data.from_clients({"a": one, "é日": one}),
    ):
        try:
            ids = population.ids_of(clients)
        except FloralError as error:
            said = str(error)
            assert said == " ".join(said.split())
        else:
            assert ids.dtype == np.int64
            assert ids.size
            assert (ids >= 0).all()
            assert (ids < population.num_clients).all()

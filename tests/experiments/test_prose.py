"""Numbers in prose are those that are kept."""

from pathlib import Path

import pytest

from floral.errors import ConfigError
from floral.records.record import read_json

FOLDER = Path(__file__).parents[2] / "experiments/floral"
TYPED_ON_PURPOSE = "## Of runs that were not kept"


@pytest.fixture
def prose(imported):
    return imported("prose")


@pytest.fixture
def kept():
    """Two methods with two seeds, whole provenance, and a grid."""
    made = {"commit": "0123456789ab", "config": "c", "versions": {"jax": "1"}, "command": "run"}

    def runs(*values):
        return {
            seed: {"accuracy": value, "seconds": 1.0, "agreement": 0.5, "made": made}
            for seed, value in enumerate(values)
        }

    task = {"floral": runs(0.5, 0.7), "fedavg": runs(0.4, 0.3)}
    grid = {"found_10": runs(0.6, 0.6), "c1_1": runs(0.7, 0.1), "c4_10": runs(0.6, 0.8)}
    return {"ours": {"digits, rotate": task}, "grid": {"digits, rotate": grid}, "as_released": {}}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("ours | rotate | floral", "60.0 ± 14.1"),
        ("ours | rotate |\n  floral | mean", "60.0"),
        ("ours | rotate | floral | seeds", "2"),
        ("ours | rotate | floral | groups", "50"),
        ("ours | rotate | floral | less fedavg", "+25.0 ± 21.2"),
        ("ours | rotate | fedavg | less floral", "−25.0 ± 21.2"),
        ("grid | rotate | found_10 | less best", "−15.0 ± 7.1"),
        ("range | ours | floral | less fedavg", "+25.0 to +25.0"),
        ("published | rotate | FedAvg", "91.5 ± 0.6"),
        ("agree | as_released", "0 of 0"),
        ("account | released code", "0.0"),
    ],
)
def test_a_place_is_filled_with_what_is_kept(asked, expected, prose, kept):
    published = read_json(FOLDER / "published.json")
    assert prose.filled(f"a {{{{ {asked} }}}} b", kept, published) == f"a {expected} b"


def test_a_number_keeps_its_mark(prose, kept):
    del kept["ours"]["digits, rotate"]["floral"][0]["made"]
    published = read_json(FOLDER / "published.json")
    assert prose.filled("{{ ours | rotate | floral }}", kept, published) == "60.0 ± 14.1°"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("our | rotate | floral", "names 'our', .* did you mean 'ours'"),
        ("ours | shift | floral", "names 'digits, label_shift'"),
        ("ours | rotate | flora", "did you mean 'floral'"),
        ("ours | rotate | floral | median", "asks for 'median'"),
        ("agree | as_releasd", "did you mean 'as_released'"),
    ],
)
def test_a_place_that_nothing_fills_is_refused(asked, message, prose, kept):
    published = read_json(FOLDER / "published.json")
    with pytest.raises(ConfigError, match=message):
        prose.filled(f"{{{{ {asked} }}}}", kept, published)


def test_no_measured_number_is_typed_but_where_the_page_says_so(prose):
    text = (FOLDER / "explanations.md").read_text(encoding="utf-8")
    assert TYPED_ON_PURPOSE in text
    assert prose.typed(text.partition(TYPED_ON_PURPOSE)[0]) == []


def test_a_typed_number_is_seen(prose):
    text = "it has 71.7 ± 5.2 or 71 ± 5, {{ ours | rotate | floral }}, in ±1 of 10 % in 1,500"
    assert prose.typed(text) == ["71.7", "5.2", "1 ± 5"]

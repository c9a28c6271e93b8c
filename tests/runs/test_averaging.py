"""Reducers of factors in a config's run."""

import json

import pytest

import floral
from floral.errors import ConfigError, FloralError


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def evaluations(folder):
    return [line["evaluation"] for line in lines(folder) if "evaluation" in line]


@pytest.mark.parametrize("kind", ["factor_mean", "product_mean", "residual_mean"])
def test_every_rounds_line_has_the_gap_that_the_reducer_reports(config, tmp_path, kind):
    uplink = {"reduce": {"kind": kind}}
    folder = floral.run(config(rounds=4, uplink=uplink), out=tmp_path).folder
    gaps = [line["uplink"]["averaging_gap"] for line in lines(folder)]
    assert len(gaps) == 4
    assert all(0 < gap < 1 for gap in gaps)
    assert all("averaging_gap" not in told["mixture"] for told in evaluations(folder))


def test_a_mean_of_factors_has_its_gap_measured_at_evaluations(diagnosed):
    assert all(0 < told["mixture"]["averaging_gap"] < 1 for told in evaluations(diagnosed.folder))


def test_a_method_of_a_comparison_without_factors_is_named(config, tmp_path):
    compare = {"plain": {"algorithm": {"kind": "fedavg"}}}
    given = config(uplink={"reduce": {"kind": "product_mean"}}, compare=compare)
    with pytest.raises(FloralError, match=r"compare.plain: uplink.reduce: product_mean averages"):
        floral.run(given, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_misspelt_reducer_is_told_the_nearest(config, tmp_path):
    with pytest.raises(ConfigError, match="product_mean"):
        floral.run(config(uplink={"reduce": {"kind": "products_mean"}}), out=tmp_path)

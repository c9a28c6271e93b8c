"""A run folder that has lost a part is gone on with as if it were whole, or refused by name."""

import re
import shutil

import pytest

import floral
from floral.cli import main
from floral.errors import ConfigError
from floral.reports.comparison import compare


@pytest.fixture(scope="module")
def six(config, tmp_path_factory):
    """The folder of a run of six rounds, evaluated and saved after every other, all kept."""
    evaluate = {"every": 2, "personalize_steps": 2, "diagnose_clients": 0}
    run = config(rounds=6, evaluate=evaluate, checkpoint={"keep": 5})
    return floral.run(run, out=tmp_path_factory.mktemp("six"), name="six").folder


@pytest.fixture
def copy(six, tmp_path):
    return shutil.copytree(six, tmp_path / "copy")


def edited(name, edit):
    """Edits the lines of a file."""

    def damage(folder):
        path = folder / name
        path.write_bytes(b"".join(edit(path.read_bytes().splitlines(keepends=True))))

    return damage


def gone(name):
    return lambda folder: (folder / name).unlink()


METRICS, TIMING = "metrics.jsonl", "timing.jsonl"

# What is lost, and what is said.
LOST = {
    "no metrics": (gone(METRICS), r"metrics.jsonl: round 1 of 6 is missing; put the file back"),
    "no times": (gone(TIMING), r"timing.jsonl: round 1 of 6 is missing"),
    "a torn end": (edited(METRICS, lambda t: [*t[:5], t[5][:40]]), r"round 6 of 6 is missing"),
    "a line less": (
        edited(METRICS, lambda t: t[:2] + t[3:]),
        r"metrics.jsonl: round 3 of 6 is missing; put the file back from a copy, or delete "
        r"\S+/checkpoints/4 and \S+/checkpoints/6 to train again from round 3, or start a new run",
    ),
    "a line twice": (edited(METRICS, lambda t: t[:2] + t[1:]), r"round 3 of 6 is missing"),
    "lines out of order": (edited(METRICS, lambda t: t[::-1]), r"round 1 of 6 is missing"),
    "a line of no mapping": (edited(METRICS, lambda t: [b"7\n", *t[1:]]), r"line 1 is damaged"),
    "no environment": (gone("environment.json"), r"environment.json: missing; it says with which"),
    "no table": (gone("clients/round_000004.parquet"), r"000004.parquet: round 4 of 6 is missing"),
    "no tables": (lambda f: shutil.rmtree(f / "clients"), r"000002.parquet: round 2 of 6 is miss"),
    **{
        f"no {key} in the environment": (
            edited("environment.json", lambda t, key=key: [e for e in t if key not in e]),
            rf"environment.json: damaged: it lacks '{key[1:-1].decode()}'; put the file back",
        )
        for key in (b'"config"', b'"data"', b'"chunk"')
    },
    "a summary without costs": (
        edited("summary.json", lambda t: [b'{"rounds": 6, "seed": 0, "seconds": 1, "last": {}}']),
        r"summary.json: damaged: it lacks 'costs'; delete it, then floral resume \S+ makes it",
    ),
    "a summary of no mapping": (edited("summary.json", lambda t: [b"[]"]), r"expected a mapping"),
}


@pytest.mark.parametrize("overrides", [(), ("rounds=8",)], ids=["finished", "gone on with"])
@pytest.mark.parametrize(("damage", "said"), LOST.values(), ids=LOST)
def test_a_run_that_lost_a_part_is_not_gone_on_with(copy, damage, said, overrides):
    damage(copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=said) as refused:
        floral.resume(copy, *overrides)
    assert "\n" not in str(refused.value)
    before.pop(copy / ".lock")
    assert all(path.read_bytes() == content for path, content in before.items())


def test_what_the_refusal_says_to_delete_mends_the_run(six, copy):
    lines = (copy / METRICS).read_bytes().splitlines(keepends=True)
    (copy / METRICS).write_bytes(b"".join(lines[:3]))
    with pytest.raises(ConfigError) as refused:
        floral.resume(copy)
    for folder in re.search(r"delete (.*) to train again", str(refused.value))[1].split(" and "):
        shutil.rmtree(folder)
    floral.resume(copy)
    assert (copy / METRICS).read_bytes() == (six / METRICS).read_bytes()


def test_a_summary_that_was_deleted_is_made_again(six, copy):
    (copy / "summary.json").unlink()
    floral.resume(copy)
    assert (copy / "summary.json").read_bytes() == (six / "summary.json").read_bytes()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        LOST["a line less"],
        LOST["a torn end"],
        (gone("clients/round_000006.parquet"), r"000006.parquet: round 6 of 6 is missing"),
        (
            lambda folder: (folder / "clients/round_000006.parquet").write_bytes(b"PAR1"),
            r"round_000006.parquet: damaged, it is no table",
        ),
        (
            edited("summary.json", lambda t: [b'{"rounds": 6, "seed": 0}']),
            r"summary.json: damaged: it lacks 'seconds'",
        ),
    ],
    ids=["a line less", "a torn end", "no last table", "a damaged table", "no seconds"],
)
def test_no_table_is_made_of_a_run_that_lost_a_part(copy, damage, said):
    damage(copy)
    with pytest.raises(ConfigError, match=said):
        compare([copy])


def test_a_report_of_a_run_that_is_gone_on_with_is_of_its_finished_rounds(copy):
    report = compare([copy])
    lines = (copy / METRICS).read_text().splitlines()
    (copy / METRICS).write_text("\n".join([*lines, lines[1].replace('"round": 2', '"round": 8')]))
    assert compare([copy]) == report


def test_a_run_is_not_loaded_without_what_it_began_with(copy):
    (copy / "environment.json").unlink()
    with pytest.raises(ConfigError, match=r"environment.json: missing; it says with which config"):
        floral.load_run(copy)


@pytest.mark.parametrize("option", ["--out", "--figure"])
def test_a_report_that_cannot_be_written_is_named_as_it_was_given(six, tmp_path, capsys, option):
    path = tmp_path / "no" / "a.svg"
    assert main(["report", str(six), option, str(path)]) == 1
    said = capsys.readouterr().err
    assert f"cannot write '{path}': there is no folder '{path.parent}'" in said
    assert ".tmp" not in said

import json

import pytest

from dppmask.errors import UserError
from dppmask.figures.records import choose_protocol, draw_records, read_records, snake_case


def record(protocol="KNN", run="a", seed=0, value=0.0):
    return {"protocol": protocol, "subject": run, "seed": seed, "tables": {}, "metrics": {"top1": value}}


@pytest.fixture
def written(tmp_path):
    def write(name, *records):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(one) + "\n" for one in records))
        return path

    return write


def test_a_repeated_evaluation_counts_once_and_the_last_one_counts(written):
    first = written("a.jsonl", record(value=0.1), record(seed=1), record(value=0.2))
    second = written("run/results.jsonl", record(run="b"), record(seed=1, value=0.3))
    found = read_records([first, second.parent])
    assert found == [record(value=0.2), record(run="b"), record(seed=1, value=0.3)]


def test_a_protocol_is_chosen_where_there_are_several():
    records = [record(), record("Linear"), record(run="b")]
    assert choose_protocol(records[:1]) == ("KNN", records[:1])
    assert choose_protocol(records, "KNN") == ("KNN", [records[0], records[2]])
    with pytest.raises(UserError, match="protocol must be given where there are several, one of KNN, Linear"):
        choose_protocol(records)
    with pytest.raises(UserError, match="did you mean Linear"):
        choose_protocol(records, "Liner")
    with pytest.raises(UserError, match="no records"):
        choose_protocol([])


@pytest.mark.parametrize("line", ["{", "3", "[]", '{"loss": 1.0}'])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(record())}\n{line}\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 is no record"):
        read_records([path])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*results\.jsonl"):
        read_records([tmp_path])


def test_the_module_is_the_name_in_snake_case():
    names = {"MultiLabel": "multi_label", "KNN": "knn", "KNNProbe": "knn_probe", "Linear": "linear"}
    assert {name: snake_case(name) for name in names} == names


@pytest.mark.parametrize("protocol", ["Nothing", "Style", "KNN"])
def test_a_protocol_without_figure_has_its_metrics_drawn_beside_their_baselines(protocol):
    one, two = record(protocol, value=0.4), record(protocol, seed=1, value=0.6)
    for number, entry in enumerate((one, two)):
        entry["subject"] = {"source": "run"}
        entry |= {"standard_errors": {"top1": 0.1}, "baselines": {"chance": {"top1": 0.1 + number}}}
    (axes,) = draw_records(protocol, [one, two]).axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(legend) == ["chance", "run, seed 0", "run, seed 1"]
    points = {x for line in axes.lines for x in line.get_xdata()}
    assert points >= {0.4, 0.6, 0.1}  # of the baseline, what the first record says
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["top1"]


def test_records_without_metrics_cannot_be_drawn():
    empty = record("KNN") | {"metrics": {}, "baselines": {}, "standard_errors": {}}
    with pytest.raises(UserError, match="no metrics"):
        draw_records("KNN", [empty | {"subject": {"source": None}}])

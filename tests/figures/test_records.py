import json

import pytest

from dppmask.errors import UserError
from dppmask.evaluation.base import Protocol
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


@pytest.mark.parametrize("protocol", ["Nothing", "Style", Protocol.__name__])
def test_a_protocol_without_figure_says_what_is_missing(protocol):
    with pytest.raises(UserError, match=rf"{protocol} has no figure: there is no dppmask.figures.\w+.draw"):
        draw_records(protocol, [record(protocol)])

"""The exported description of the collected tables."""

from experiments.schema import EVALUATIONS, RUNS, SENTENCES, TABLES_VERSION, columns, schemas
from harness import records


def test_records_and_tables_are_described_side_by_side():
    found = schemas()
    assert set(found) == {*records.schemas(), "tables"}
    assert found["tables"] == {"version": TABLES_VERSION, **columns()}
    assert list(columns()) == [RUNS, EVALUATIONS, SENTENCES]


def test_every_column_has_a_type_and_a_meaning():
    for table in columns().values():
        for name, column in table.items():
            assert {"type", "anyOf", "enum"} & set(column), name
            assert column["description"].strip(), name


def test_records_in_records_become_columns_and_what_has_no_fixed_names_json():
    runs = columns()[RUNS]
    assert runs["config.tolerance"]["type"] == "number"
    assert runs["config.search_sentences"]["anyOf"][-1] == {"type": "null"}
    assert runs["sets.test.drop"]["description"] == "dense minus pruned, in BLEU points"
    assert runs["held.bound"]["type"] == runs["failure.seconds"]["type"] == "number"
    assert "sets" not in runs
    for name in ("groups", "files", "rounds", "sets.test.interval", "environment.packages"):
        assert runs[name]["contentMediaType"] == "application/json"
    assert columns()[EVALUATIONS]["knobs"]["type"] == "array"

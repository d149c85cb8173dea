"""What is exported beside results: the schema of the records, and of the tables that are collected.

``schema.json`` holds the JSON Schema of each record by its file name, and under ``tables`` the type and
meaning of each column of each table. What has no fixed names is a column of JSON text.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from harness import records
from harness.configuration import CellConfig
from harness.records import Environment, Evaluation, Failure, Held, Result, SetResult

RUNS, EVALUATIONS, SENTENCES = "runs.parquet", "evaluations.parquet", "sentences.parquet"
#: changes when a column gets another meaning or goes
TABLES_VERSION = 1
SETS = ("search", "confirm", "test")
#: fields that are records with fields of their own, which become columns
NESTED: dict[str, type[BaseModel]] = {"held": Held, "environment": Environment}


def schemas() -> dict[str, object]:
    """All of ``schema.json``."""
    return {**records.schemas(), "tables": {"version": TABLES_VERSION, **columns()}}


def columns() -> dict[str, dict[str, dict[str, Any]]]:
    """Type and description of every column, in the words of JSON Schema, by table."""
    cell = _text("where the cell's folder is, below the folder of all cells; names the cell")
    runs = {
        "cell": cell,
        "model": _text("what the plan calls the dense model"),
        "status": _text("done or failed"),
        "planned": {"type": "boolean", "description": "whether the plan, as it was run last, has the cell"},
        **dict(_fields(CellConfig, "config.")),
        **dict(_fields(Result, "")),
        **dict(_fields(Failure, "failure.")),
    }
    evaluations = {"cell": cell, **dict(_fields(Evaluation, ""))}
    evaluations["knobs"] |= {"type": "array", "items": {"type": "number"}}
    evaluations["knobs"].pop("contentMediaType")
    return {RUNS: runs, EVALUATIONS: evaluations, SENTENCES: _sentences()}


def _sentences() -> dict[str, dict[str, Any]]:
    number = {"type": "integer"}
    return {
        "file_sha256": _text("of the file of hypotheses, as in files of the runs"),
        "corpus_sha256": _text("of the text that is translated"),
        "checkpoint_sha256": _text("of the dense model"),
        "model": _text("dense, or pruned by the first cell that gave this translation"),
        "beam": number | {"description": "of the translation"},
        "sentences": number | {"description": "of the test set"},
        "statistics": {
            "type": "string",
            "contentEncoding": "binary",
            "description": "bytes of little-endian int16: ten counts per sentence, sentence by sentence: "
            "lengths of hypothesis and reference, matched n-grams of orders 1 to 4, n-grams of the "
            "hypothesis of orders 1 to 4",
        },
    }


def _fields(record: type[BaseModel], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    properties = record.model_json_schema()["properties"]
    for name, found in properties.items():
        if name in NESTED:
            yield from _fields(NESTED[name], f"{prefix}{name}.")
        elif name == "sets":
            for split in SETS:
                yield from _fields(SetResult, f"{prefix}{name}.{split}.")
        else:
            yield prefix + name, _column(found)


def _column(found: dict[str, Any]) -> dict[str, Any]:
    kept = {
        key: value for key, value in found.items() if key in ("type", "anyOf", "enum", "const", "default")
    }
    if found.get("type") in ("array", "object"):
        kept = {"type": "string", "contentMediaType": "application/json"}
    return kept | {"description": found.get("description", found["title"].lower())}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}

"""Result folders as one DataFrame: a row per finished cell."""

import json
from pathlib import Path

import pandas as pd

SETS = ("search", "confirm", "test")
#: fields of the configuration whose names the result uses for what was spent
BUDGETS = ("evaluations", "tokens")


def read_cells(folder: Path) -> pd.DataFrame:
    """All finished cells below ``folder``; unfinished and foreign folders are left out.

    Columns: ``cell`` (path below ``folder``), the configuration's fields (its budgets as
    ``budget_evaluations`` and ``budget_tokens``), ``family``,
    ``remaining`` (fraction of the prunable connections), ``backed_off``, ``evaluations``,
    ``tokens``, ``seconds``, and per set ``<set>_dense``, ``<set>_bleu``, ``<set>_drop``,
    ``<set>_low``, ``<set>_high`` (BLEU points; low and high bound the drop).
    """
    rows = []
    for path in sorted(folder.rglob("result.json")):
        config, result = (_read(path.with_name(name)) for name in ("config.json", "result.json"))
        if config is None or result is None:
            continue
        row = {"cell": path.parent.relative_to(folder).as_posix()}
        row |= {f"budget_{key}" if key in BUDGETS else key: value for key, value in config.items()}
        row |= {key: value for key, value in result.items() if not isinstance(value, dict | list)}
        for name in SETS:
            found = result["sets"][name]
            row |= {f"{name}_{key}": found[key] for key in ("bleu", "drop", "standard_error")}
            row[f"{name}_dense"] = found["dense_bleu"]
            row[f"{name}_low"], row[f"{name}_high"] = found["interval"]
        rows.append(row)
    return pd.DataFrame(rows)


def _read(path: Path) -> dict | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "schema_version" in content else None

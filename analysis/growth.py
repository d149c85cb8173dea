"""``python -m analysis.growth``: what candidates cost as models, groups and sentences grow, as a figure."""

import argparse
import json
import sys
from pathlib import Path

import altair as alt
import pandas as pd

SIZE = {"width": 190, "height": 170}


def figure(rows: list[dict]) -> alt.HConcatChart:
    """A step over parameters, the same in memory passes over groups, an evaluation over sentences."""
    table = pd.DataFrame(rows)
    steps = table[table["id"] == "growth"].assign(milliseconds=lambda t: 1000 * t["apply_seconds"])
    models = alt.Shape("model:N", title="model", scale=alt.Scale(domain=sorted(table["model"].unique())))
    points = alt.Chart(steps).mark_point(color="black", filled=True, size=40).encode(shape=models)
    parameters = points.encode(
        alt.X("parameters:Q", title="parameters", axis=alt.Axis(format="~s")),
        alt.Y("milliseconds:Q", title="applying a candidate (ms)"),
        tooltip=["model", "grouping", "parameters", "milliseconds"],
    )
    groups = points.encode(
        alt.X("groups:Q", title="groups", scale=alt.Scale(type="log")),
        alt.Y("apply_passes:Q", title="applying a candidate (memory passes)", scale=alt.Scale(domainMin=0)),
        tooltip=["model", "grouping", "groups", "apply_passes"],
    )
    sentences = (
        alt.Chart(table[table["id"] == "evaluation"])
        .mark_line(color="black", point=alt.OverlayMarkDef(filled=True, color="black", size=40))
        .encode(
            alt.X("sentences:Q", title="sentences"),
            alt.Y("seconds:Q", title="an evaluation (s, one core)"),
            shape=models,
            detail="model:N",
            tooltip=["model", "sentences", "seconds"],
        )
    )
    return alt.hconcat(*(panel.properties(**SIZE) for panel in (parameters, groups, sentences)))


def main() -> int:
    parser = argparse.ArgumentParser("python -m analysis.growth", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=Path("results/growth.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/growth.svg"), help=".svg, .png, .pdf or .html")
    args = parser.parse_args()
    try:
        rows = json.loads(args.file.read_text(encoding="utf-8"))
        figure(rows).save(str(args.out))
    except (OSError, ValueError, KeyError) as error:
        print(f"no figure from {args.file} ({error}): python -m experiments.growth makes it", file=sys.stderr)
        return 2
    print(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

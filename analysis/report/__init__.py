"""The report: one page that holds everything it shows and asks no network for anything."""

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

import altair
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis import settings
from analysis.errors import NotCollected
from analysis.frame import SETS, Results, failed, finished, require
from analysis.output import GENERATOR
from analysis.report import words
from analysis.report.answers import answers
from analysis.report.content import SCORES, contents, own_versions, skipped, versions
from analysis.report.glossary import glossary
from analysis.report.texts import Texts

#: columns that a finished cell has to have
NEEDED = [
    *settings.NEEDED,
    *("family", "files", "remaining_of_all", "seconds", "tokens"),
    *(f"sets.{split}.{name}" for split in SETS for name in SCORES),
]


def page(results: Results) -> str:
    """The report as HTML. Raises NotCollected if there are no cells at all, or if columns are missing."""
    if len(rows := finished(results.runs)):
        require(rows, NEEDED, "the table of runs")
    texts = Texts(results)
    shown = contents(results, texts)
    try:
        found, setting = answers(results, texts), settings.setting_name(settings.main_setting(results.runs))
    except NotCollected:  # nothing is finished yet: what has failed is worth a page, too
        found, setting = [], ""
    scripts = [_vega(), _own("report.js")]
    environment = Environment(
        loader=PackageLoader("analysis.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        generator=GENERATOR,
        answers=found,
        words=words,
        glossary=glossary(results.runs),
        setting=setting,
        grids=[folder.resolve().name for folder in results.folders],
        done=len(rows),
        failed=failed(results.runs).to_dict("records"),
        skipped=skipped(results),
        left_out=shown["left_out"],
        figures=shown["figures"],
        versions=versions(results),
        own_versions=own_versions(),
        has_text=bool(shown["texts"]),
        data=_embedded(shown),
        styles=_own("report.css"),
        scripts=scripts,
        # only these scripts run, whatever a name or a translation holds
        hashes=[_hash(script) for script in scripts],
    )


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed in the version that the figures are written for."""
    version = ".".join(altair.SCHEMA_VERSION.split(".")[:2])
    snippet = "window.vegaEmbed = vegaEmbed;"
    script = vl_convert.javascript_bundle(snippet, vl_version=version)
    if "</script" in script.lower():
        raise ValueError("the libraries cannot be put into a page")
    return script


def _own(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _embedded(data: dict[str, Any]) -> str:
    """JSON that may stand in a page: no character of it can end its element or begin another."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

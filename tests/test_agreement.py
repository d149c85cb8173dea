"""The shipped models, pruned and written back: fairseq-generate and sacrebleu are the outside tools."""

from pathlib import Path

import numpy as np
import pytest

from experiments import agreement
from grouping.errors import StudyError
from harness.cell import Study
from harness.corpus.corpus import Corpus
from harness.corpus.databin import import_databin, parse_parts
from harness.operators import operators

ROOT = Path(__file__).parents[1]
PREPARED = ROOT / "data" / "homeassistant.en-de"
SENTENCES = 100


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """The first test sentences of the default corpus, as a corpus of their own."""
    folder = tmp_path_factory.mktemp("agreement") / "corpus"
    parts = parse_parts([f"test=test[:{SENTENCES}]", "search=search[:1]", "confirm=confirm[:1]"])
    import_databin(PREPARED / "bin", folder, "en", "de", parts, PREPARED / "bpe.model")
    return folder


@pytest.fixture(scope="module", params=["transformer", "rnnsearch"])
def pruned(request, corpus, tmp_path_factory) -> tuple[Study, Path]:
    """A shipped model without a tenth of its connections, and its checkpoint."""
    study = Study.open(ROOT / "models" / "homeassistant.en-de" / f"{request.param}.pt", corpus)
    operators.get("magnitude")(study.model, study.groups("single")).apply(np.array([0.1]))
    path = tmp_path_factory.mktemp(request.param) / "pruned.pt"
    study.model.save(path)
    return study, path


def test_fairseq_generate_and_sacrebleu_agree(pruned):
    study, checkpoint = pruned
    found = agreement.compare(study, checkpoint)
    assert found.sentences == SENTENCES
    assert found.share >= 0.99
    assert found.command_line_bleu == f"{found.bleu:.2f}"
    assert found.holds
    # they agree on translations, not on one sentence for all
    assert len(set(study.sentences("test", agreement.BEAM).dense.hypotheses)) > SENTENCES / 2


@pytest.mark.parametrize(
    ("identical", "command_line_bleu", "holds"),
    [(99, "31.23", True), (98, "31.23", False), (100, "31.24", False)],
)
def test_disagreement_is_told(identical, command_line_bleu, holds):
    found = agreement.Agreement(100, identical, 31.2349, command_line_bleu, "31.20")
    assert found.holds == holds
    assert f"{identical} of 100 sentences identical ({identical}.00%)" in str(found)


def test_a_checkpoint_that_fairseq_cannot_read_is_told(corpus, tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(StudyError, match="fairseq_cli.generate failed: "):
        agreement.generate(tmp_path / "broken.pt", Corpus.open(corpus), "test", 1)


def test_sacrebleu_is_the_command_line():
    # 1-grams 4/4, 2-grams 3/3, 3-grams 2/2, 4-grams 1/1, brevity exp(1 - 5/4): 100·exp(-0.25)
    assert agreement.sacrebleu(["a b c d"], ["a b c d e"]) == "77.88"

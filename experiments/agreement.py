"""``python -m experiments.agreement``: our decoder against fairseq-generate, our BLEU against sacrebleu.

A checkpoint is written back in fairseq's format, translated by ``fairseq-generate``, and scored by
the ``sacrebleu`` command line. The pruned checkpoint of a cell is such a file already and is taken
as it is.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grouping.errors import StudyError
from harness import records
from harness.bleu import score
from harness.cell import Study
from harness.cli import guarded
from harness.corpus.corpus import Corpus

BEAM = 5
#: the float32 sums of two programs differ in their last bits, so two beams may change places
SHARE = 0.99


@dataclass(frozen=True)
class Agreement:
    """One checkpoint on one split; BLEU in percent."""

    sentences: int
    #: sentences whose detokenised text is the same
    identical: int
    #: our text, by harness.bleu
    bleu: float
    #: our text, as the ``sacrebleu`` command line prints it
    command_line_bleu: str
    #: fairseq-generate's text, as the ``sacrebleu`` command line prints it
    fairseq_bleu: str

    @property
    def share(self) -> float:
        """Fraction of sentences with the same text."""
        return self.identical / self.sentences

    @property
    def holds(self) -> bool:
        return self.share >= SHARE and self.command_line_bleu == f"{self.bleu:.2f}"

    def __str__(self) -> str:
        return (
            f"{self.identical} of {self.sentences} sentences identical ({self.share:.2%}); "
            f"BLEU ours {self.bleu:.2f}, by sacrebleu's command line {self.command_line_bleu}, "
            f"fairseq-generate's {self.fairseq_bleu}"
        )


def compare(study: Study, checkpoint: Path, split: str = "test", beam: int = BEAM) -> Agreement:
    """Translate a split with the study's model and with ``fairseq-generate`` from ``checkpoint``.

    The checkpoint must hold the weights that the model has now. Raises StudyError if one of the
    programs fails.
    """
    ours = study.sentences(split, beam)
    theirs = generate(checkpoint, study.corpus, split, beam)
    pairs = zip(ours.dense.hypotheses, theirs, strict=True)
    return Agreement(
        sentences=len(theirs),
        identical=sum(one == other for one, other in pairs),
        bleu=score(ours.dense.statistics.sum(axis=0)),
        command_line_bleu=sacrebleu(ours.dense.hypotheses, ours.references),
        fairseq_bleu=sacrebleu(theirs, ours.references),
    )


def generate(checkpoint: Path, corpus: Corpus, split: str, beam: int) -> list[str]:
    """Hypotheses of ``fairseq-generate``, detokenised by itself, in the order of the split."""
    command = [sys.executable, "-m", "fairseq_cli.generate", str(corpus.folder / "bin")]
    command += ["--path", str(checkpoint), "--gen-subset", split, "--beam", str(beam), "--cpu"]
    command += ["--source-lang", corpus.source, "--target-lang", corpus.target]
    command += ["--post-process", corpus.about["bpe"]]
    if corpus.about["moses"]:
        command += ["--tokenizer", "moses"]
    # with fairseq's default of 8 the sentences beyond a multiple of it are dropped, and nobody is told
    command += ["--required-batch-size-multiple", "1", "--num-workers", "0"]
    found = {}
    for line in _output(command).split("\n"):
        if line.startswith("D-"):
            number, _, text = line.removeprefix("D-").split("\t")
            found[int(number)] = text
    expected = len(corpus.references(split))
    if sorted(found) != list(range(expected)):
        raise StudyError(f"fairseq-generate translated {len(found)} of {expected} sentences of {split}")
    return [found[number] for number in range(expected)]


def sacrebleu(hypotheses: Sequence[str], references: Sequence[str]) -> str:
    """BLEU in percent as the command line of sacrebleu prints it, with two decimals."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("references", "hypotheses")]
        for path, lines in zip(paths, (references, hypotheses), strict=True):
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        command = [sys.executable, "-m", "sacrebleu", str(paths[0]), "--input", str(paths[1])]
        return _output([*command, "--score-only", "--width", "2"]).strip()


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        reason = (done.stderr.strip() or "it gave no reason").splitlines()[-1]
        raise StudyError(f"{command[2]} failed: {reason}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser("python -m experiments.agreement", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--corpus", type=Path, default=Path("data/homeassistant.en-de"), metavar="FOLDER")
    parser.add_argument("--split", default="test", help="a split of the corpus (default: %(default)s)")
    args = parser.parse_args()
    failed = []
    for checkpoint in args.checkpoint:
        study = Study.open(checkpoint, args.corpus)
        with tempfile.TemporaryDirectory() as folder:
            exported = checkpoint
            if checkpoint.name != records.CHECKPOINT:
                exported = Path(folder) / records.CHECKPOINT
                study.model.save(exported)
            agreement = compare(study, exported, args.split)
        print(f"{checkpoint}: {agreement}", flush=True)
        if not agreement.holds:
            failed.append(str(checkpoint))
    if failed:
        raise StudyError(
            f"{', '.join(failed)}: less than {SHARE:.0%} of the sentences identical, or another BLEU"
        )


if __name__ == "__main__":
    raise SystemExit(guarded(main))

"""An existing fairseq data-bin as a corpus folder, token ids unchanged."""

import re
import shutil
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import sentencepiece

from grouping.errors import StudyError
from harness.corpus.corpus import DECIDING, detokeniser, load_dictionary, load_tokens
from harness.corpus.prepare import new_folder, write_about, write_text
from harness.corpus.splits import SPLITS

if TYPE_CHECKING:
    from fairseq.data import Dictionary

ASSIGNMENT = re.compile(r"(\w+)=(\w+)(?:\[(\d*):(\d*)\])?")


class Part(NamedTuple):
    """Sentences ``start`` to ``stop`` (not included; None for all) of a split of the data-bin."""

    split: str
    start: int = 0
    stop: int | None = None

    def overlaps(self, other: "Part") -> bool:
        """Whether both take a sentence of the same split."""
        ends = [float("inf") if part.stop is None else part.stop for part in (self, other)]
        return self.split == other.split and max(self.start, other.start) < min(ends)


def parse_parts(assignments: Iterable[str]) -> dict[str, Part]:
    """Read assignments such as ``search=valid[:1000]``: our split, the data-bin's, which sentences.

    Raises StudyError for a malformed one, an unknown split, two parts that share sentences, and
    when one of search, confirm and test is missing.
    """
    parts: dict[str, Part] = {}
    for assignment in assignments:
        match = ASSIGNMENT.fullmatch(assignment)
        if not match:
            raise StudyError(f"bad split {assignment!r}: write for example search=valid[:1000] or test=test")
        name, split, start, stop = match.groups()
        if name not in SPLITS or name in parts:
            reason = "given twice" if name in parts else f"unknown, take one of {', '.join(SPLITS)}"
            raise StudyError(f"bad split {assignment!r}: {name} is {reason}")
        parts[name] = Part(split, int(start or 0), int(stop) if stop else None)
    if missing := [name for name in DECIDING if name not in parts]:
        raise StudyError(f"no sentences for {', '.join(missing)}: add for example {missing[0]}=valid[:1000]")
    for one, other in combinations(parts, 2):
        if parts[one].overlaps(parts[other]):
            raise StudyError(f"{one} and {other} share sentences of {parts[one].split}: give slices apart")
    return {name: parts[name] for name in SPLITS if name in parts}


def used_files(databin: Path, source: str, target: str, parts: Mapping[str, Part]) -> list[Path]:
    """Every file of the data-bin that an import reads. Raises StudyError when one is missing."""
    files = [databin / f"dict.{language}.txt" for language in (source, target)]
    for split in dict.fromkeys(part.split for part in parts.values()):
        prefixes = [_prefix(databin, split, source, target, language) for language in (source, target)]
        files += [prefix.with_name(f"{prefix.name}.{end}") for prefix in prefixes for end in ("bin", "idx")]
    for path in files:
        if not path.is_file():
            known = sorted({found.name.split(".")[0] for found in databin.glob("*.*-*.*.idx")})
            raise StudyError(f"{path} is missing; splits found in {databin}: {', '.join(known) or 'none'}")
    return files


def bpe_kind(model: Path) -> str:
    """fairseq's name of a segmentation, from its model: "sentencepiece", or "subword_nmt" for codes.

    Raises StudyError for a file that is neither.
    """
    if not model.is_file():
        raise StudyError(f"{model} is missing: give the sentencepiece model or the codes of subword-nmt")
    try:
        sentencepiece.SentencePieceProcessor(model_file=str(model))
        return "sentencepiece"
    except (RuntimeError, OSError):
        pass
    try:
        lines = model.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        lines = []
    # one merge a line: two symbols, in fastBPE's files a count behind them; a version may come first
    merges = lines[1:] if lines and lines[0].startswith("#version") else lines
    if merges and all(len(merge.split()) in (2, 3) for merge in merges):
        return "subword_nmt"
    raise StudyError(f"{model} is neither a sentencepiece model nor a file of subword-nmt codes")


def import_databin(
    databin: Path,
    folder: Path,
    source: str,
    target: str,
    parts: Mapping[str, Part],
    bpe: Path,
    moses: bool = False,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Copy the sentences that ``parts`` name into a new corpus folder; text is decoded from their ids.

    ``bpe`` is the model or the codes the data-bin was segmented with; ``moses`` undoes Moses
    tokenisation after it. Returns what ``corpus.json`` says. Raises StudyError for a damaged or
    misaligned data-bin and for an empty part.
    """
    kind = bpe_kind(bpe)
    used_files(databin, source, target, parts)
    with new_folder(folder) as draft:
        (draft / "bin").mkdir()
        shutil.copyfile(bpe, draft / ("bpe.model" if kind == "sentencepiece" else "bpe.codes"))
        sides = []
        for language in (source, target):
            shutil.copyfile(databin / f"dict.{language}.txt", draft / "bin" / f"dict.{language}.txt")
            dictionary = load_dictionary(databin / f"dict.{language}.txt")
            plain = detokeniser(kind, language if moses else None)
            side = {}
            for name, part in parts.items():
                prefix = _prefix(databin, part.split, source, target, language)
                ids = _cut(name, part, load_tokens(prefix, dictionary), dictionary, prefix)
                _write_ids(draft / "bin" / f"{name}.{source}-{target}.{language}", ids, dictionary)
                side[name] = [plain([dictionary[i] for i in sentence[:-1]]) for sentence in ids]
            sides.append(side)
        for name in parts:
            lengths = [len(side[name]) for side in sides]
            if lengths[0] != lengths[1]:
                raise StudyError(
                    f"{name} is misaligned: {lengths[0]} {source}, {lengths[1]} {target} sentences"
                )
        text = {name: list(zip(sides[0][name], sides[1][name], strict=True)) for name in parts}
        write_text(draft, text, source, target)
        return write_about(draft, text, source, target, kind, moses, origin or {})


def _prefix(databin: Path, split: str, source: str, target: str, language: str) -> Path:
    """A binarised file without its suffix; like fairseq, either order of the languages will do."""
    swapped = databin / f"{split}.{target}-{source}.{language}"
    if swapped.with_name(swapped.name + ".idx").is_file():
        return swapped
    return databin / f"{split}.{source}-{target}.{language}"


def _cut(
    name: str, part: Part, sentences: list[np.ndarray], dictionary: "Dictionary", prefix: Path
) -> list[np.ndarray]:
    if part.start >= len(sentences) or (part.stop or len(sentences)) > len(sentences):
        raise StudyError(
            f"{name} asks for sentences {part.start}:{part.stop} of {len(sentences)} in {prefix}.bin"
        )
    chosen = sentences[part.start : part.stop]
    if not chosen:
        raise StudyError(f"{name} is empty: {part.split}[{part.start}:{part.stop}]")
    if not all(ids.size and ids[-1] == dictionary.eos() for ids in chosen):
        raise StudyError(f"{prefix}.bin has sentences without an end: binarise them with fairseq-preprocess")
    return chosen


def _write_ids(prefix: Path, sentences: list[np.ndarray], dictionary: "Dictionary") -> None:
    import torch
    from fairseq.data.indexed_dataset import make_builder

    builder = make_builder(f"{prefix}.bin", impl="mmap", vocab_size=len(dictionary))
    for ids in sentences:
        builder.add_item(torch.from_numpy(ids))
    builder.finalize(f"{prefix}.idx")

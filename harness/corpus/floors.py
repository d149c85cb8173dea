"""What BLEU a split gives to systems that have learned nothing: the floors under every other figure.

*copy* returns the source. *nearest* returns the translation of the training sentence whose source is
nearest by TF-IDF cosine over words. A model near either translates no better than a look-up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils import gen_batches

from harness.corpus.splits import normalised_words

#: held-out sentences compared with all of train at once; bounds memory
BATCH = 200


def floors(text: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, Any]:
    """BLEU (0 to 100) of *copy* and *nearest* on every split but train, with sacrebleu's signature.

    ``text`` holds (source, target) pairs by split. Without a train split, *nearest* is empty.
    """
    bleu = BLEU()
    found: dict[str, dict[str, float]] = {"copy": {}, "nearest": {}}
    held_out = {split: pairs for split, pairs in text.items() if split != "train"}
    for split, pairs in held_out.items():
        references = [[target for _, target in pairs]]
        found["copy"][split] = bleu.corpus_score([source for source, _ in pairs], references).score
        if text.get("train"):
            sources, targets = zip(*text["train"], strict=True)
            rows = nearest([source for source, _ in pairs], sources)
            found["nearest"][split] = bleu.corpus_score([targets[i] for i in rows], references).score
    rounded = {name: {split: round(score, 2) for split, score in by.items()} for name, by in found.items()}
    return {**rounded, "signature": str(bleu.get_signature())}


def nearest(sentences: Sequence[str], pool: Sequence[str]) -> list[int]:
    """Index into ``pool`` of the nearest sentence by TF-IDF cosine; of equally near ones the first.

    Words are compared without case, digits, punctuation and placeholders; the weights come from ``pool``.
    A sentence that shares no word with the pool gets index 0.
    """
    vectors = TfidfVectorizer(analyzer=normalised_words)
    try:
        columns = vectors.fit_transform(pool).T.tocsc()
    except ValueError:  # not one word in the pool
        return [0] * len(sentences)
    rows = vectors.transform(sentences)
    found: list[int] = []
    for batch in gen_batches(len(sentences), BATCH):
        found += np.asarray((rows[batch] @ columns).toarray()).argmax(axis=1).tolist()
    return found

"""Five sets of sentences that do not leak into each other.

``train`` and ``valid`` belong to training, ``search`` decides during a search, ``confirm`` must also
hold for a result to count, ``test`` is only reported. Text is split by component, and a held-out
sentence is one without a near-copy in any other component, so that no choice of components can put
a near-copy of it into another split.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from harness.corpus.homeassistant import Pair

SPLITS = ("train", "valid", "search", "confirm", "test")
#: sentences aimed at in each held-out split
HELD_OUT = {"test": 2000, "confirm": 1200, "search": 1200, "valid": 500}
#: a held-out sentence has at least this many words, as written and after normalisation
MIN_WORDS = 4
#: no component gives more than this share of a held-out split
MAX_SHARE = 0.05

NOT_A_WORD = re.compile(r"\{[^{}]*\}|[\W\d_]+")


def normalised_words(sentence: str) -> tuple[str, ...]:
    """The words of a sentence without case, digits, punctuation and placeholders."""
    return tuple(NOT_A_WORD.sub(" ", sentence.casefold()).split())


def fourgrams(words: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """The distinct word 4-grams of a sentence; empty below four words."""
    return frozenset(tuple(words[i : i + 4]) for i in range(len(words) - 3))


def with_foreign_near_copy(sentences: Sequence[str], owners: Sequence[str]) -> list[bool]:
    """For each sentence, whether another owner has a near-copy of it.

    Two sentences are near-copies if they are equal after normalisation or share at least half of
    the word 4-grams of either of them.
    """
    words = [normalised_words(sentence) for sentence in sentences]
    grams = [fourgrams(w) for w in words]
    owners_of_words: dict[tuple[str, ...], set[str]] = defaultdict(set)
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, owner in enumerate(owners):
        owners_of_words[words[i]].add(owner)
        for gram in grams[i]:
            holders[gram].append(i)
    found = [len(owners_of_words[w]) > 1 for w in words]
    for i, mine in enumerate(grams):
        if found[i] or not mine:
            continue
        shared = Counter(j for gram in mine for j in holders[gram] if owners[j] != owners[i])
        found[i] = any(2 * n >= min(len(mine), len(grams[j])) for j, n in shared.items())
    return found


def near_copies(sources: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many sentences of each held-out split have a near-copy in another split.

    ``sources`` maps splits to source sentences; splits without near-copies are left out.
    """
    held_out = [(split, line) for split, lines in sources.items() if split != "train" for line in lines]
    words = {normalised_words(line) for _, line in held_out}
    grams = {gram for sentence in words for gram in fourgrams(sentence)}
    # training text may be large: only what shares words with held-out text is worth its memory
    training = [
        ("train", line)
        for line in sources.get("train", [])
        if (mine := normalised_words(line)) in words or not grams.isdisjoint(fourgrams(mine))
    ]
    owners, sentences = zip(*held_out, *training, strict=True)
    found = with_foreign_near_copy(sentences, owners)[: len(held_out)]
    return dict(Counter(split for (split, _), copied in zip(held_out, found, strict=True) if copied))


def split_by_component(pairs: Iterable[Pair], seed: int = 1) -> dict[str, list[Pair]]:
    """Deal whole components to the five splits, in an order drawn from ``seed``.

    Held-out splits keep only sentences of at least four words that have no near-copy in another
    component, each source once; what else a held-out component holds is not used at all. Training pairs
    that several components repeat are kept once.
    """
    pairs = list(pairs)
    foreign = with_foreign_near_copy([p.source for p in pairs], [p.component for p in pairs])
    private: dict[str, list[Pair]] = defaultdict(list)
    seen = set()
    for pair, shared in zip(pairs, foreign, strict=True):
        words = normalised_words(pair.source)
        long_enough = min(len(words), len(pair.source.split())) >= MIN_WORDS
        if long_enough and not shared and words not in seen:
            seen.add(words)
            private[pair.component].append(pair)

    def draw(component: str) -> str:
        return hashlib.sha256(f"{seed}:{component}".encode()).hexdigest()

    splits: dict[str, list[Pair]] = {name: [] for name in SPLITS}
    waiting = sorted(private, key=draw)
    held_out = set()
    for name, wanted in HELD_OUT.items():
        while waiting and len(splits[name]) < wanted:
            fitting = (c for c in waiting if len(private[c]) <= max(1, MAX_SHARE * wanted))
            if (component := next(fitting, None)) is None:
                break
            waiting.remove(component)
            held_out.add(component)
            splits[name] += private[component]
    training = {pair[1:]: pair for pair in reversed(pairs) if pair.component not in held_out}
    splits["train"] = list(reversed(training.values()))
    return splits


def without_near_copies(splits: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, list[tuple[str, str]]]:
    """Remove from each split the pairs whose source has a near-copy in a later split.

    For corpora that come split already. The last split stays whole; the order of ``splits`` is kept.
    """
    kept: dict[str, list[tuple[str, str]]] = {}
    later: list[str] = []
    for name, pairs in reversed(list(splits.items())):
        owners = [name] * len(pairs) + ["later"] * len(later)
        copied = with_foreign_near_copy([source for source, _ in pairs] + later, owners)
        kept[name] = [pair for pair, copy in zip(pairs, copied[: len(pairs)], strict=True) if not copy]
        later += [source for source, _ in kept[name]]
    return {name: kept[name] for name in splits}

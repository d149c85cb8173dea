"""Multi30k (Elliott et al., 2016): image captions, English and German, from the user's own copy.

The licence of the text is not stated in its repository (``multi30k/dataset`` on GitHub), so it is
neither shipped nor fetched.
"""

from pathlib import Path

from grouping.errors import StudyError
from harness.corpus.splits import without_near_copies
from harness.files import file_hash

LANGUAGES = ("de", "en")
#: sentences of val that go to valid; the rest goes to search
VALID = 500
SHA256 = {
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2017_flickr.de": "c3078bc3b36808bf9d20eb2347ed6137016179ef59ec0d2b9b8ecc3fb2880081",
    "test_2017_flickr.en": "ce1450ddc5ab0834502579d77a170849952e15a2938b34cc503bdc25ebb4fb98",
    "test_2017_mscoco.de": "58277df3c75f92f7145a11b910b553d1cf82c439249d4dc237c899609eafac22",
    "test_2017_mscoco.en": "43051fdfa86fd5395182e718a94ca67b1b227b9f7c79596ff0f6b813216981d2",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
}


def splits(folder: Path, source: str, target: str) -> dict[str, list[tuple[str, str]]]:
    """The five splits, from the raw text files in ``folder``.

    ``test_2016_flickr`` is test, ``test_2017_flickr`` confirm, the first 500 sentences of ``val`` valid; the
    rest of ``val`` and ``test_2017_mscoco`` are search. Near-copies of a later split are removed from the
    earlier ones. Raises StudyError for other languages and for a file that is missing or not the
    published one.
    """
    if {source, target} != set(LANGUAGES):
        raise StudyError(f"Multi30k is read as en-de or de-en, not {source}-{target}")
    text = {}
    for name in ("train", "val", "test_2017_mscoco", "test_2017_flickr", "test_2016_flickr"):
        sides = [_lines(folder / f"{name}.{language}") for language in (source, target)]
        text[name] = list(zip(*sides, strict=True))
    return without_near_copies(
        {
            "train": text["train"],
            "valid": text["val"][:VALID],
            "search": text["val"][VALID:] + text["test_2017_mscoco"],
            "confirm": text["test_2017_flickr"],
            "test": text["test_2016_flickr"],
        }
    )


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise StudyError(f"{path} is missing: give the folder with {', '.join(SHA256)} (raw text)")
    if (digest := file_hash(path)) != SHA256[path.name]:
        raise StudyError(f"{path} has sha256 {digest}, the published file {SHA256[path.name]}")
    return [" ".join(line.split()) for line in path.read_text(encoding="utf-8").splitlines()]

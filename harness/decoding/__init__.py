"""Translation with a fairseq model, in process: greedy and beam search, finished sentences dropped."""

from harness.decoding.batch import Decoding
from harness.decoding.translate import Translations, Translator

__all__ = ["Decoding", "Translations", "Translator"]

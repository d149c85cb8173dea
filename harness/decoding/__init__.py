"""Translation with a fairseq model, in process: greedy and beam search, finished sentences dropped."""

from harness.decoding.translate import Decoding, Translations, Translator

__all__ = ["Decoding", "Translations", "Translator"]

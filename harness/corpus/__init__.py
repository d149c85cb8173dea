"""Parallel text: where it comes from, how it is split, how it becomes a fairseq data-bin."""

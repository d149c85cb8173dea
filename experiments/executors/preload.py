"""Imported once by the process from which all workers of a machine are forked, so that they start at once."""

from harness.model import quiet_fairseq

with quiet_fairseq():
    import fairseq.models
    import fairseq.tasks.translation  # noqa: F401

    import experiments.work  # noqa: F401
    import harness.cell  # noqa: F401

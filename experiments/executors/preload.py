"""Imported once by the process from which all workers of a machine are forked, so that they start at once."""

import experiments.work  # noqa: F401
import harness.cell  # noqa: F401
from harness.model import import_fairseq

import_fairseq()

"""Imported once by the process from which all workers of a machine are forked, so that they start at once."""

import signal

# Ctrl-C is the runner's to answer; multiprocessing sees to that only when all is imported
_before = signal.signal(signal.SIGINT, signal.SIG_IGN)

from harness.model import import_fairseq  # noqa: E402

import_fairseq()

import experiments.work  # noqa: E402, F401
import harness.cell  # noqa: E402
import harness.search.optimisers  # noqa: E402, F401

signal.signal(signal.SIGINT, _before)

"""fairseq-train on the architecture of an existing checkpoint.

fairseq-train takes the architecture from its command line, not from the checkpoint it starts from. The
job, a JSON file, holds both: ``places`` and ``arguments`` of fairseq-train, and ``model``, the settings of
the checkpoint.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq_cli import train

import harness.training  # changes fairseq: masks are held
import harness.training.distillation  # noqa: F401 (a criterion more)
from harness.gradual import Gradual, Pruner
from harness.retraining import GRADUAL, LOG, PLACES, out_of_patience, read_job, told
from harness.training.gradual import install

#: settings of the task that belong to the model as well: how many positions it has learned
POSITIONS = ("max_source_positions", "max_target_positions")


def main(job: Path) -> None:
    """Train to the end, in this process."""
    # as fairseq-train sets it, unless something imported before has set it already
    form = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"
    logging.basicConfig(format=form, level=logging.INFO, stream=sys.stdout, force=True)
    content = read_job(job)
    settings = content["model"]
    arch = settings["_name"]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    ARCH_MODEL_REGISTRY[arch].add_args(parser)
    own = {action.dest for action in parser._actions} | set(POSITIONS)
    words = [*content[PLACES], *content["arguments"], "--arch", arch]
    args = options.parse_args_and_arch(options.get_training_parser(), words)
    for name in own & set(settings):
        setattr(args, name, settings[name])
    if "gradual" in content:
        install(Pruner(Gradual.read(job.with_name(GRADUAL)), int(args.max_epoch)))
    log = job.with_name(LOG)

    def should_stop_early(cfg: Any, valid_loss: float | None) -> bool:
        """As fairseq's own, asked after every update; but it follows from the log, which outlives a kill."""
        return valid_loss is not None and out_of_patience(told(log), cfg.checkpoint.patience)

    train.should_stop_early = should_stop_early
    train.main(convert_namespace_to_omegaconf(args))

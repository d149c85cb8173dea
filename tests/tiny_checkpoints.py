"""The tiny models with weights that translate, as checkpoints and as the harness reads them."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from tiny_models import MODELS, lstm, settings, task
from torch import nn

from harness.model import TranslationModel, load_model


def lively(model: str, seed: int = 1) -> nn.Module:
    """One of ``MODELS`` with random weights, large enough that what is read decides what is said.

    fairseq's own first weights are so small that nearly all hypotheses would be alike.
    """
    torch.manual_seed(seed)
    build, options = MODELS[model]
    module = build(**options)
    spread = {"attn": 1.0, "lstm": 1.0, "decoder.layers": 1.0} if build is lstm else {"attn": 1.0}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=next((std for part, std in spread.items() if part in name), 0.4))
        for part in module.modules():
            if isinstance(part, nn.Embedding) and part.padding_idx is not None:
                part.weight[part.padding_idx] = 0  # as training leaves it
    return module.eval()


def content(model: str, module: nn.Module) -> dict[str, Any]:
    """What fairseq-train would write for the module, as far as reading it needs."""
    return {
        "cfg": {"model": Namespace(**settings(model)), "task": {"source_lang": "en", "target_lang": "de"}},
        "model": module.state_dict(),
        "optimizer_history": [],
        "extra_state": {},
    }


def load(model: str, path: Path, trust: bool = False) -> TranslationModel:
    """Read a checkpoint of one of ``MODELS`` with the dictionaries that fit it."""
    dictionaries = task(settings(model))
    return load_model(path, dictionaries.source_dictionary, dictionaries.target_dictionary, trust)


def tiny(model: str, folder: Path, seed: int = 1) -> tuple[nn.Module, TranslationModel]:
    """A lively model as fairseq has it, and the same read by the harness from a checkpoint in ``folder``."""
    module = lively(model, seed)
    path = folder / "tiny.pt"
    torch.save(content(model, module), path)
    return module, load(model, path)

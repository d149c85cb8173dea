"""Translation models trained with fairseq: read, laid out as one vector of weights, written back.

The only module that builds fairseq models. A checkpoint is untrusted input: it is unpickled with
torch's weights-only reader and a short allow-list.
"""

import argparse
import collections
import contextlib
import copy
import ctypes
import hashlib
import itertools
import logging
import os
import pickle
import struct
import sys
import types
import typing
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grouping.anatomy import ModelDescription, parts_of
from grouping.errors import StudyError
from harness.files import write_atomically
from harness.workers import GPUS

#: what wants scikit-learn, and TensorBoard, and translates nothing
UNUSED = (
    *("fairseq.criterions.sentence_prediction", "fairseq.criterions.sentence_prediction_adapters"),
    *("fairseq.tasks.audio_classification", "torch.utils.tensorboard"),
)
SUPPORTED = {"lstm": "LSTMModel", "transformer": "TransformerModel"}
#: what reading a damaged file was seen to raise inside torch; a trusted one may also need foreign modules
DAMAGE = (
    *(RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(ImportError, struct.error, zipfile.BadZipFile),
)


@dataclass
class TranslationModel:
    """A dense model in float32 whose parameters are views into one flat vector.

    ``flat`` is float32 [parameters], tied tensors once; ``offsets`` maps the first name of each
    tensor to where it starts in ``flat``. Writing into ``flat`` changes the model.
    """

    #: fairseq's model; Any, because fairseq has no type hints
    module: Any
    description: ModelDescription
    flat: torch.Tensor
    offsets: Mapping[str, int]
    state: dict[str, Any]
    content_hash: str

    @property
    def family(self) -> str:
        return self.description.family

    def load_weights(self, checkpoint: Path) -> None:
        """Take over the weights of another checkpoint of the same architecture.

        Raises StudyError if it cannot be read or does not fit.
        """
        weights = read_checkpoint(checkpoint)["model"]
        _check_finite(weights, checkpoint)
        try:
            self.module.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise StudyError(f"{checkpoint} is of another architecture: {reason}") from None

    def save(self, path: Path) -> None:
        """Write the current weights as a checkpoint that plain ``fairseq-generate`` loads.

        Only plain containers are written, so that a weights-only reader accepts it; tied tensors
        share their storage.
        """
        state = {key: copy.deepcopy(self.state[key]) for key in ("cfg", "extra_state", "optimizer_history")}
        # float32 as computed: a reader gets back exactly the weights that were evaluated
        state["model"] = _compact(self.module.state_dict())

        def write(draft: Path) -> None:
            with draft.open("wb") as file:  # to a path torch.save would write its name into the file
                torch.save(state, file)

        write_atomically(path, write)


def load_model(
    checkpoint: Path, source_dictionary: Any, target_dictionary: Any, trust: bool = False
) -> TranslationModel:
    """Read a fairseq ``lstm`` or ``transformer`` checkpoint into float32.

    ``trust`` lets the checkpoint run arbitrary code while it is read. Raises StudyError for a
    missing, truncated, foreign or unsafe file, for weights that are not finite and for
    dictionaries that do not fit.
    """
    state = read_checkpoint(checkpoint, trust)
    state.pop("last_optimizer_state", None)  # twice the size of the model
    settings = _model_settings(state, checkpoint)
    module = _build(settings, state, source_dictionary, target_dictionary, checkpoint)
    _check_finite(state.pop("model"), checkpoint)
    _hand_back_memory()  # the weights as they were read
    flat, offsets = _flatten(module)
    _hand_back_memory()  # the parameters as they were built
    description = _describe(module)
    parts_of(description)  # refuses what fairseq can build and neither groupings nor decoders know
    return TranslationModel(
        module=module,
        description=description,
        flat=flat,
        offsets=offsets,
        state=_exported(state, settings),
        content_hash=hash_weights(flat),
    )


def description_of(
    arguments: Sequence[str], source_dictionary: Any, target_dictionary: Any
) -> ModelDescription:
    """What fairseq-train would train with these arguments: names and shapes."""
    import_fairseq()
    with quiet_fairseq():
        from fairseq import models, options
        from fairseq.tasks.translation import TranslationConfig, TranslationTask

        args = options.parse_args_and_arch(options.get_training_parser(), ["", *arguments])
        task = TranslationTask(TranslationConfig(), source_dictionary, target_dictionary)
        return _describe(models.build_model(args, task))


def snapshot(module: Any) -> TranslationModel:
    """A model that is being trained: its weights as they are now, copied; the module keeps its own."""
    parameters = dict(module.named_parameters())
    pieces = [parameter.detach().float().cpu().flatten() for parameter in parameters.values()]
    starts = itertools.accumulate((piece.numel() for piece in pieces), initial=0)
    offsets = dict(zip(parameters, starts, strict=False))
    return TranslationModel(module, _describe(module), torch.cat(pieces), offsets, {}, "")


def hash_weights(flat: torch.Tensor) -> str:
    """sha256 of the weights as numbers, so that a copied or re-saved checkpoint keeps its identity."""
    return hashlib.sha256(flat.numpy().data).hexdigest()


def read_checkpoint(checkpoint: Path, trust: bool = False) -> dict[str, Any]:
    """The dictionary inside a checkpoint file, read without running code from it."""
    if checkpoint.is_dir():
        inside = ", ".join(sorted(path.name for path in checkpoint.glob("*.pt"))) or "no .pt file"
        raise StudyError(f"{checkpoint} is a folder, where a checkpoint is wanted; in it there is {inside}")
    if not checkpoint.is_file():
        raise StudyError(f"checkpoint {checkpoint} does not exist")
    # what is allowed already stays so: torch forgets at the end whatever it was given here
    allowed = set() if trust else _allowed_globals() - set(torch.serialization.get_safe_globals())
    try:
        with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about damage before it fails
            state = torch.load(checkpoint, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        reason = str(error)
        if "GLOBAL" in reason:
            raise StudyError(
                f"checkpoint {checkpoint} wants to run code while it is read "
                f"({_forbidden_global(reason)}); if you trust its author, pass --trust-checkpoint"
            ) from None
        raise StudyError(f"{checkpoint} is no checkpoint, or is damaged: copy it again") from None
    except EOFError:
        raise StudyError(f"checkpoint {checkpoint} is truncated: it ends too soon, copy it again") from None
    except DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StudyError(f"checkpoint {checkpoint} is truncated or unreadable: {reason}") from None
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise StudyError(f"{checkpoint} is no fairseq checkpoint: it has no 'model' entry")
    return state


def _allowed_globals() -> set[Any]:
    from omegaconf import AnyNode, DictConfig, ListConfig
    from omegaconf.base import ContainerMetadata, Metadata

    containers = [DictConfig, ListConfig, AnyNode, ContainerMetadata, Metadata]
    return {argparse.Namespace, *containers, typing.Any, collections.defaultdict, dict, list, int}


def _forbidden_global(reason: str) -> str:
    words = reason.replace("`", " ").split()
    named = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "GLOBAL"]
    return f"it names {named[0]}" if named else "it holds more than weights"


def _model_settings(state: dict[str, Any], checkpoint: Path) -> argparse.Namespace:
    """The model's own arguments as a Namespace, whatever version of fairseq wrote them."""
    from omegaconf import OmegaConf

    cfg = state.get("cfg")
    settings = state.get("args") if cfg is None else cfg.get("model")
    if OmegaConf.is_config(settings):
        settings = OmegaConf.to_container(settings, resolve=True)
    if isinstance(settings, Mapping):
        settings = argparse.Namespace(**settings)
    if not isinstance(settings, argparse.Namespace):
        raise StudyError(f"{checkpoint} does not say which model it holds: neither 'cfg' nor 'args'")
    return copy.deepcopy(settings)


def _build(
    settings: argparse.Namespace, state: dict[str, Any], source: Any, target: Any, checkpoint: Path
) -> nn.Module:
    import_fairseq()
    with quiet_fairseq():
        from fairseq import models
        from fairseq.tasks.translation import TranslationConfig, TranslationTask

        architecture = getattr(settings, "_name", None) or getattr(settings, "arch", None)
        known = models.ARCH_MODEL_REGISTRY.get(architecture)
        if known is None or known.__name__ not in SUPPORTED.values():
            raise StudyError(
                f"architecture {architecture!r} is not supported; supported: fairseq's "
                f"{' and '.join(SUPPORTED)} and the architectures derived from them"
            )
        if getattr(settings, "cross_self_attention", False):
            raise StudyError(
                f"{checkpoint} has --cross-self-attention, which is not supported: train without"
            )
        _check_dictionaries(state["model"], source, target, checkpoint)
        settings.arch = settings._name = architecture
        settings.dropout = getattr(settings, "dropout", 0.0)
        # pretrained embeddings would be read from files; the checkpoint has the weights already
        settings.encoder_embed_path = settings.decoder_embed_path = None
        try:
            task = TranslationTask(TranslationConfig(), source, target)
            module = models.build_model(copy.deepcopy(settings), task)
            weights = copy.copy(state["model"])
            module.load_state_dict(weights, strict=True, model_cfg=settings)
            weights.clear()  # fairseq leaves it in a reference cycle, which would keep all tensors for long
        except (RuntimeError, AttributeError, TypeError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())[:300]
            raise StudyError(f"{checkpoint} does not fit its own description: {reason}") from None
    return module.float().eval().requires_grad_(False)


def _check_dictionaries(weights: Mapping[str, torch.Tensor], source: Any, target: Any, path: Path) -> None:
    for side, dictionary in (("encoder", source), ("decoder", target)):
        embedding = weights.get(f"{side}.embed_tokens.weight")
        if embedding is not None and len(embedding) != len(dictionary):
            raise StudyError(
                f"dictionary does not match {path}: the {side} has {len(embedding)} embeddings, the "
                f"corpus's dictionary {len(dictionary)} symbols; use the corpus the model was trained on"
            )


def _check_finite(weights: Mapping[str, torch.Tensor], checkpoint: Path) -> None:
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise StudyError(f"{checkpoint} holds NaN or infinite weights in {name}: train it again")


def _hand_back_memory() -> None:
    """Give freed memory back to the system.

    glibc keeps what it gave out in blocks of less than 32 MB: nearly a whole model of small matrices.
    """
    with contextlib.suppress(OSError, AttributeError):  # no glibc, no such habit
        ctypes.CDLL(None).malloc_trim(0)


def _flatten(module: nn.Module) -> tuple[torch.Tensor, dict[str, int]]:
    """Move all parameters into one vector and leave views behind."""
    parameters = dict(module.named_parameters())
    flat = torch.empty(sum(p.numel() for p in parameters.values()), dtype=torch.float32)
    offsets, start = {}, 0
    for name, parameter in parameters.items():
        view = flat[start : start + parameter.numel()].view(parameter.shape)
        view.copy_(parameter.data)
        parameter.data = view
        offsets[name] = start
        start += parameter.numel()
    return flat, offsets


def _describe(module: nn.Module) -> ModelDescription:
    first_names: dict[int, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    tied: dict[str, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        shapes[name] = tuple(parameter.shape)
        if first_names.setdefault(id(parameter), name) != name:
            tied[name] = first_names[id(parameter)]
    padding_rows = {
        f"{name}.weight": part.padding_idx
        for name, part in module.named_modules()
        if isinstance(part, nn.Embedding) and part.padding_idx is not None and f"{name}.weight" not in tied
    }
    family = next(family for family, name in SUPPORTED.items() if name == type(module).__name__)
    heads = {}
    if family == "transformer":
        heads = {side: getattr(module, side).layers[0].self_attn.num_heads for side in ("encoder", "decoder")}
    return ModelDescription(family, shapes, tied, heads, padding_rows)


def _exported(state: dict[str, Any], settings: argparse.Namespace) -> dict[str, Any]:
    """What a checkpoint of ours says beside the weights: plain containers, no paths of this machine."""
    cfg = state.get("cfg")
    task = dict(cfg["task"]) if isinstance(cfg, Mapping) and isinstance(cfg.get("task"), Mapping) else {}
    languages = {key: task.get(key, getattr(settings, key, None)) for key in ("source_lang", "target_lang")}
    return {
        "cfg": {
            "model": _plain(vars(settings) | {"data": "", "save_dir": "", "user_dir": None}),
            "task": {"_name": "translation", "data": "", **languages},
        },
        "extra_state": {},
        "optimizer_history": [{"optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}],
    }


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that plain containers can say, paths apart; what a model needs is never anything else."""
    scalar = (str, int, float, bool, type(None))
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in settings.items()
        if (isinstance(value, scalar) and not (isinstance(value, str) and ("/" in value or "\\" in value)))
        or (isinstance(value, list | tuple) and all(isinstance(v, scalar) for v in value))
    }


def _compact(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies out of the flat vector; names that share a tensor share one copy."""
    copies: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
    return {
        name: copies.setdefault((tensor.data_ptr(), tuple(tensor.shape)), tensor.detach().clone())
        for name, tensor in weights.items()
    }


def import_fairseq() -> None:
    """Import what reading a model takes: seconds, once, where other processes are forked afterwards.

    Half of them without ``UNUSED``: fairseq imports all of its tasks and criterions, whoever asks for one.

    To be called before anything else imports fairseq, which counts the GPUs then: no fork of a process that
    has asked CUDA can use it.
    """
    if "fairseq.tasks.translation" in sys.modules:
        return
    visible = os.environ.get(GPUS)
    os.environ[GPUS] = ""
    unused = {name: types.ModuleType(name) for name in UNUSED if name not in sys.modules}
    sys.modules.update(unused)
    try:
        with quiet_fairseq():
            import fairseq.models
            import fairseq.tasks.translation  # noqa: F401
    finally:
        for name in unused:
            del sys.modules[name]
        if visible is None:
            del os.environ[GPUS]
        else:
            os.environ[GPUS] = visible


@contextlib.contextmanager
def quiet_fairseq() -> Iterator[None]:
    """Import and use fairseq without its log lines and deprecation warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

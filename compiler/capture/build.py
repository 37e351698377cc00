"""Models without weights: the right structure, shapes and non-persistent buffers, and parameters nobody may read."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging as library_logging

from hf2khc.diagnostics import fail


def build(
    config: PreTrainedConfig, model_class: type[PreTrainedModel], attention: str | None = None
) -> PreTrainedModel:
    """The model of a config with untouched memory for its parameters, in float32 and eval mode, caches off.

    Raises:
        ConversionError: `cannot-build`.
    """
    return materialise(build_meta(config, model_class, attention))


def build_meta(
    config: PreTrainedConfig, model_class: type[PreTrainedModel], attention: str | None = None, caches: bool = False
) -> PreTrainedModel:
    """The model of a config on the meta device: every shape, no memory. The config is copied.

    Args:
        config: config of the whole model.
        model_class: class to build.
        attention: attention implementation; the library's default if None.
        caches: leave caches on where the config has them.

    Raises:
        ConversionError: `cannot-build`.
    """
    try:
        with quiet(), torch.device("meta"):
            return _construct(config, model_class, attention, caches)
    except Exception as error:
        raise fail(
            "cannot-build",
            f"{model_class.__name__} does not build from its config",
            location=str(config.name_or_path or config.model_type),
            excerpt=f"{type(error).__name__}: {error}"[:600],
            hint="correct the config, or convert another class with --task",
        ) from error


def _construct(
    config: PreTrainedConfig, model_class: type[PreTrainedModel], attention: str | None, caches: bool = False
) -> PreTrainedModel:
    config = copy.deepcopy(config)
    if not caches:
        turn_caches_off(config)
    options = {"attn_implementation": attention} if attention else {}
    return model_class._from_config(config, dtype=torch.float32, **options).eval()


def turn_caches_off(config: PreTrainedConfig) -> None:
    """Sets `use_cache` to False in a config and all its sub-configs: outputs of the model then hold no cache."""
    for part in configs(config):
        if getattr(part, "use_cache", None):
            part.use_cache = False


def configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """A config and its sub-configs, the outermost first."""
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PreTrainedConfig):
            yield from configs(value)


@torch.no_grad()
def materialise(model: PreTrainedModel) -> PreTrainedModel:
    """Moves a model from the meta device to the CPU in place.

    Parameters get memory that is never touched and so takes no space; shared ones stay shared. Buffers get the values
    that transformers itself gives them when it loads a checkpoint.

    Raises:
        ConversionError: `unknown-buffer` when transformers has no value for a non-persistent buffer.
    """
    _place(model)
    for parameter in model.parameters():
        parameter._is_hf_initialized = True
    first = _initialised_buffers(model, 0)
    second = _initialised_buffers(model, 1)
    unset = [name for name, value in second.items() if not torch.equal(_bits(first[name]), _bits(value))]
    plain = list(_meta_attributes(model))
    if unset or plain:
        _take_from_real(model, unset, plain)
    return model


def _meta_attributes(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Tensors that are neither parameters nor buffers: (module path, attribute)."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor) and value.device.type == "meta":
                yield path, name


def _bits(value: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(value) if value.is_floating_point() else value


def _place(model: nn.Module) -> None:
    # One new tensor per old one, where Module.to_empty makes one per place and so unties what was shared.
    placed: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.device.type == "meta":
                if id(parameter) not in placed:
                    empty = torch.empty_like(parameter, device="cpu")
                    placed[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = placed[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.device.type == "meta":
                module._buffers[name] = torch.zeros_like(buffer, device="cpu")


def _initialised_buffers(model: PreTrainedModel, fill: int) -> dict[str, torch.Tensor]:
    """Copies of the non-persistent buffers as transformers initialises them from memory filled with `fill`."""
    buffers = dict(model.named_non_persistent_buffers())
    for buffer in buffers.values():
        buffer.fill_(fill)
    for module in model.modules():
        module._is_hf_initialized = False
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.initialize_weights()
    return {name: buffer.clone() for name, buffer in model.named_non_persistent_buffers()}


def _take_from_real(model: PreTrainedModel, buffers: list[str], attributes: list[tuple[str, str]]) -> None:
    """Takes what transformers' initialisation leaves out from a model constructed on the CPU, weights unset."""
    with quiet(), init.no_init_weights():
        real = _construct(model.config, type(model), model.config._attn_implementation)
    places = [(*name.rpartition(".")[::2], "_buffers") for name in buffers]
    for path, name, store in [*places, *((path, name, "__dict__") for path, name in attributes)]:
        try:
            value = getattr(real.get_submodule(path), name)
        except AttributeError as error:
            raise fail(
                "unknown-buffer", f"nothing gives {path}.{name} its value", location=type(model).__name__
            ) from error
        getattr(model.get_submodule(path), store)[name] = value.clone()


@contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings, logs and progress bars of transformers and torch: what goes wrong here is raised."""
    # Not logging.disable: torch would then go on collecting a trace for a handler that never finds out it is unused.
    handlers = _handlers()
    bars = library_logging.is_progress_bar_enabled()
    library_logging.disable_progress_bar()
    for handler in handlers:
        handler.addFilter(_nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(_nothing)
        if bars:
            library_logging.enable_progress_bar()


def _handlers() -> list[logging.Handler]:
    """Handlers of the loggers of torch and transformers, but for torch's own trace, which nobody reads on a screen."""
    loggers = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
        and name.split(".")[0] in ("torch", "transformers")
        and name != "torch.__trace"
    ]
    return list(dict.fromkeys(handler for logger in loggers for handler in logger.handlers))


def _nothing(record: logging.LogRecord) -> bool:
    return False

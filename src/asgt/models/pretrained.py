"""Models of other libraries by name, ``timm:NAME`` and ``hf:FOLDER_OR_ID``, with the preprocessing of their training.

Mean, standard deviation, input size, share of the crop and interpolation come from the model's own configuration.
Nothing from a hub or a folder is executed: remote code is disabled, and weights are plain tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import DamagedFileError, InputError, unknown
from ..files import read_json
from ..names import is_foreign
from .hub_access import hub_errors, quiet

__all__ = [
    "Preprocessing",
    "brings_weights",
    "build_hf",
    "build_hf_without_weights",
    "build_timm",
    "hf_architecture",
    "preprocessing",
]

_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers of the interpolations, as processors of transformers store them."""

_SQUASHED = " (it squashes images that are not square; here they are cropped)"

_ATTENTIONS = ("eager", "sdpa", "flex_attention")
"""The implementations of attention in transformers; any other is a package, or a program from the hub."""

_PLACES = ("_name_or_path", "name_or_path", "auto_map", "use_pretrained_backbone", "quantization_config")
"""Keys of a configuration of transformers that are not part of the architecture."""

_INTERPOLATIONS = tuple(_RESAMPLING.values())


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing and the classes in a model's own configuration.

    Attributes:
        mean: per channel, in units of [0, 1]; ``None`` if the model uses unnormalised images.
        std: per channel.
        image_size: height and width that the model was trained with, in pixels.
        crop: the share of the resized short side in the centre crop, in (0, 1].
        interpolation: of resizing, by Pillow's name.
        classes: the names of the classes in the order of the logits, if the configuration has them.
        source: a description of the source.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    crop: float | None = None
    interpolation: str | None = None
    classes: tuple[str, ...] | None = None
    source: str = ""


def brings_weights(name: str) -> bool:
    """Whether building a model may load weights by itself: the user's factory, ``hf:…`` and ``timm:…``."""

    return is_foreign(name) or name.startswith(("hf:", "timm:"))


def preprocessing(name: str) -> Preprocessing | None:
    """The preprocessing in the configuration of a model ``hf:…`` or ``timm:…``; ``None`` for other names.

    Raises:
        InputError: the model does not exist, or its configuration is invalid.
    """

    if name.startswith("timm:"):
        return _of_timm(name.removeprefix("timm:"))
    if name.startswith("hf:"):
        return _of_hf(name.removeprefix("hf:"))
    return None


# timm ----------------------------------------------------------------------------------------------------------------


def build_timm(
    name: str, channels: int, classes: int | None, image_size: tuple[int, int], pretrained: bool
) -> nn.Module:
    """A model of timm.

    Args:
        name: its name in timm.
        channels: channels of the images.
        classes: K. Default: the number in the model's configuration.
        image_size: (H, W) of the images, for models that need it.
        pretrained: load timm's weights from the hub.

    Raises:
        InputError: timm cannot be imported, does not have the model, or cannot download its weights.
    """

    timm = _timm(name)
    config = timm.get_pretrained_cfg(name)
    if pretrained and config is not None and classes not in (None, config.num_classes):
        raise InputError(
            f"timm:{name}: its weights have {config.num_classes} classes, not {classes}: assign the classes of the "
            "data to logits with --classes"
        )
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    try:
        with quiet():
            try:
                net: nn.Module = timm.create_model(
                    name, pretrained=pretrained, in_chans=channels, img_size=image_size, **options
                )
            except TypeError:  # most nets take images of any size, and have no such setting
                net = timm.create_model(name, pretrained=pretrained, in_chans=channels, **options)
    except RuntimeError as error:
        if "Unknown model" in str(error):
            raise unknown("timm model", name, timm.list_models(f"*{name[:4]}*")) from error
        raise InputError(f"timm:{name} cannot be built: {_first_line(error)}") from error
    except Exception as error:  # the hub, the file system and the model each have errors of their own
        where = "its weights cannot be loaded; give a file with --weights" if pretrained else "it cannot be built"
        raise InputError(f"timm:{name}: {where}: {_first_line(error)}") from error
    return net


def _of_timm(name: str) -> Preprocessing:
    timm = _timm(name)
    from timm.data import resolve_data_config

    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise unknown("timm model", name, timm.list_models(f"*{name[:4]}*"))
    own = resolve_data_config(pretrained_cfg=config.to_dict(), verbose=False)
    _, height, width = own["input_size"]
    if height != width:
        raise InputError(
            f"timm:{name} has images of {height}×{width} px, but asgt reads only square ones: choose another model"
        )
    names = config.label_names
    return Preprocessing(
        mean=tuple(own["mean"]),
        std=tuple(own["std"]),
        image_size=int(height),
        crop=float(own["crop_pct"]),
        interpolation=_interpolation(own["interpolation"], f"timm:{name}"),
        classes=tuple(map(str, names)) if names else None,
        source=f"timm's configuration of {name}" + (_SQUASHED if own["crop_mode"] == "squash" else ""),
    )


def _timm(name: str) -> Any:
    try:
        with quiet():
            import timm
    except Exception as error:  # timm imports torchvision, which fails in many ways beside a torch it was not built for
        raise InputError(
            f"timm:{name}: timm cannot be imported here ({type(error).__name__}): pip install 'asgt[timm]', and a "
            "torchvision that matches this torch"
        ) from error
    return timm


# transformers --------------------------------------------------------------------------------------------------------


def build_hf(name: str) -> nn.Module:
    """An image classifier of transformers with its weights, from a folder or the hub.

    Raises:
        InputError: transformers is not installed, the model does not exist, or it is not an image classifier.
        DamagedFileError: its weights cannot be read.
    """

    transformers = _transformers(f"hf:{name}")
    config = _config(name)
    if "pretrained_cfg" in config:
        raise InputError(
            f"hf:{name} is a model of timm: write timm:{config.get('architecture')}, and give its weights "
            "with --weights"
        )
    _refuse_config(config, f"hf:{name}")
    where = str(Path(name)) if Path(name).is_dir() else name
    error: Exception | None = None
    for plain in (True, False):
        try:
            with quiet():
                net, report = transformers.AutoModelForImageClassification.from_pretrained(
                    where, trust_remote_code=False, use_safetensors=plain, output_loading_info=True
                )
            break
        except Exception as this:  # a missing file, a damaged one, a model that wants code of its own
            error = error or this
    else:
        assert error is not None
        if isinstance(error, ImportError):
            raise _unusable(f"hf:{name}", error) from error
        raise DamagedFileError(f"hf:{name} cannot be loaded: {_first_line(error)}") from error
    if lacking := sorted(report.get("missing_keys") or ()):
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise InputError(
            f"hf:{name}: its weights lack {lacking[0]!r}{more}, which would be random: use complete weights"
        )
    built: nn.Module = net
    return built


def hf_architecture(name: str) -> dict[str, Any]:
    """The configuration of a model ``hf:…``, from which :func:`build_hf_without_weights` builds it anywhere.

    Paths and names of code are omitted, and so are weights that a part would download from the hub.

    Raises:
        InputError: the model does not exist. DamagedFileError
        : its configuration cannot be read.
    """

    config: dict[str, Any] = _without_places(_config(name))
    return config


def build_hf_without_weights(config: Mapping[str, Any], called: str) -> nn.Module:
    """An image classifier of transformers with random weights.

    Args:
        config: from :func:`hf_architecture`; it is untrusted, and nothing in it is executed.
        called: the name of the model in errors.

    Raises:
        InputError: transformers is not installed, or the configuration is not of an image classifier.
    """

    transformers = _transformers(called)
    _refuse_config(config, called)
    try:
        with quiet():
            kind = transformers.AutoConfig.for_model(**_without_places(config))
            net: nn.Module = transformers.AutoModelForImageClassification.from_config(kind, trust_remote_code=False)
    except ImportError as error:
        raise _unusable(called, error) from error
    except Exception as error:  # each kind of model has errors of its own
        raise InputError(f"{called} cannot be built: {type(error).__name__}: {_first_line(error)}") from error
    return net


def _refuse_config(config: Mapping[str, Any], called: str) -> None:
    """Refuses the configuration of what is no image classifier, or of one that asks for code of the hub."""

    architectures = config.get("architectures")
    kinds = [each for each in _listed(architectures) if isinstance(each, str)]
    if not any("ForImageClassification" in each for each in kinds):
        raise InputError(
            f"{called} is not an image classifier: its configuration names {', '.join(kinds) or 'nothing'}"
        )
    if other := next((each for each in _attentions(config) if each not in _ATTENTIONS), None):
        raise InputError(
            f"{called}: its config.json names the attention {other}, which may be a program on the hub: remove "
            "attn_implementation from it"
        )


def _without_places(value: Any) -> Any:
    """A configuration without the keys that name a place, code, or weights to be fetched, at any depth."""

    if isinstance(value, Mapping):
        return {key: _without_places(each) for key, each in value.items() if key not in _PLACES}
    return [_without_places(each) for each in value] if isinstance(value, list) else value


def _attentions(value: Any, asked: bool = False) -> Iterator[str]:
    """The implementations of attention that a configuration or a part of it asks for."""

    if isinstance(value, str) and asked:
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _attentions(each, asked or "attn_implementation" in str(key))


def _of_hf(name: str) -> Preprocessing:
    config, processor = _config(name), _processor(name)
    source = f"the configuration of hf:{name}"
    names = config.get("id2label")
    classes = None
    if isinstance(names, Mapping) and all(str(number) in names for number in range(len(names))):
        classes = tuple(str(names[str(number)]) for number in range(len(names)))
        # What nobody named is called so.
        classes = None if all(each == f"LABEL_{number}" for number, each in enumerate(classes)) else classes
    if processor is None:
        # Such a folder is what save_pretrained of the model alone leaves.
        source += ", which has no preprocessor_config.json"
        return Preprocessing(image_size=_whole(config.get("image_size")), classes=classes, source=source)

    try:
        return _of_processor(processor, config, classes, name, source)
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"hf:{name}: its preprocessor_config.json has an invalid value: {_first_line(error)}"
        ) from error


def _of_processor(
    processor: Mapping[str, Any], config: Mapping[str, Any], classes: tuple[str, ...] | None, name: str, source: str
) -> Preprocessing:
    if processor.get("do_flip_channel_order", False):
        raise InputError(
            f"hf:{name} expects the channels blue, green, red: give --model package.module:factory that reverses them"
        )
    mean, std = _normalisation(processor, name)
    size, crop, squashed, interpolation = None, None, False, None
    if processor.get("do_resize", True):
        size, crop, squashed = _sizes(processor, name)
        interpolation = _interpolation(processor.get("resample", 2), f"hf:{name}")
    size = size or _whole(config.get("image_size"))
    source += _SQUASHED if squashed else ""
    return Preprocessing(mean, std, size, crop, interpolation, classes=classes, source=source)


def _processor(name: str) -> dict[str, Any] | None:
    """The settings of a model's image processor, with the defaults of its kind where transformers can tell them."""

    written = _json(name, "preprocessor_config.json", None)
    if written is None:
        written = (_json(name, "processor_config.json", None) or {}).get("image_processor")
    if written is None:
        return None
    transformers = _transformers(f"hf:{name}")
    try:
        with quiet():
            own = transformers.AutoImageProcessor.from_pretrained(name, use_fast=False, trust_remote_code=False)
            whole = json.loads(own.to_json_string())
    except ImportError as error:
        raise _unusable(f"hf:{name}", error) from error
    except Exception:  # a processor with code of its own: only its file can be read
        return dict(written)
    return dict(whole)


def _normalisation(
    processor: Mapping[str, Any], name: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """The mean and deviation, in units of [0, 1], with the same effect as a processor on pixels from 0 to 255.

    A processor maps a pixel p to (f·p + o − m) / s, with rescale factor f and offset o. Some divide by s twice.
    """

    mean, std = ([float(value) for value in _listed(processor.get(f"image_{each}"))] for each in ("mean", "std"))
    again = std if processor.get("include_top", False) else []
    if not processor.get("do_normalize", bool(mean)):
        mean, std = [0.0] * len(again or [0]), [1.0] * len(again or [0])
    if not mean or len(mean) != len(std):
        raise InputError(
            f"hf:{name}: its preprocessor_config.json has do_normalize without image_mean and image_std: add them"
        )
    if again:
        std = [first * second for first, second in zip(std, again, strict=True)]
    factor = float(processor.get("rescale_factor") or 1 / 255) if processor.get("do_rescale", True) else 1.0
    scale = 1.0 if math.isclose(factor, 1 / 255, rel_tol=1e-3) else 255 * factor
    offset = -1.0 if processor.get("rescale_offset", False) and processor.get("do_rescale", True) else 0.0
    mean, std = [(value - offset) / scale for value in mean], [value / scale for value in std]
    if set(mean) == {0.0} and set(std) == {1.0}:
        return None, None
    return tuple(mean), tuple(std)


def _sizes(processor: Mapping[str, Any], name: str) -> tuple[int | None, float | None, bool]:
    """The side of the images, the share of the crop, and whether images that are not square are squashed.

    Different processors of transformers read the same keys in different ways.
    """

    size, crop_size = processor.get("size"), processor.get("crop_size")
    kind = str(processor.get("image_processor_type", processor.get("feature_extractor_type", "")))
    side = _side(size, name)
    cropped = _side(crop_size, name) if processor.get("do_center_crop", False) else None
    share = processor.get("crop_pct")
    if kind.startswith("ConvNext") and (side or 0) >= 384:
        return side, None, True
    if kind.startswith("Levit"):
        share = 224 / 256
    if kind.startswith("Perceiver") and side is not None and cropped is not None:  # it crops first
        return side, side / cropped, False
    squashed = isinstance(size, Mapping) and "height" in size and share is None
    if side is None or (cropped is None and share is None):
        return cropped or side, None, squashed
    kept = cropped or side
    if kept > side / (share or 1.0):
        raise InputError(f"hf:{name}: its processor crops {kept} px of {side}: correct its preprocessor_config.json")
    return kept, kept / side * (share or 1.0), squashed


def _side(size: Any, name: str) -> int | None:
    """The one side of a square that a processor's size names; the short side where it names that."""

    if not isinstance(size, Mapping):
        return _whole(size)
    if size.get("height") != size.get("width"):
        raise InputError(
            f"hf:{name} has images of {size.get('height')}×{size.get('width')} px, but asgt reads only "
            "square ones: choose another model"
        )
    return _whole(size.get("shortest_edge", size.get("height")))


def _transformers(called: str) -> Any:
    try:
        with quiet():
            import transformers
    except Exception as error:
        raise InputError(
            f"{called}: transformers cannot be imported here ({type(error).__name__}): pip install 'asgt[hf]'"
        ) from error
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _unusable(called: str, error: ImportError) -> InputError:
    """The error where transformers is installed but a part of it fails to import, most often because of torchvision."""

    return InputError(
        f"{called}: {_first_line(error).split('. ')[0]}: install a torchvision that matches this torch, or none"
    )


def _config(name: str) -> dict[str, Any]:
    config: dict[str, Any] | None = _json(name, "config.json", None)
    if config is None:
        where = (
            "the folder has no config.json" if Path(name).is_dir() else "there is no such folder or model on the hub"
        )
        raise InputError(f"hf:{name}: {where}")
    return config


def _json(name: str, file: str, default: Any) -> Any:
    """A file of a model's folder, or of the hub; ``default`` where there is none."""

    if not name:
        raise InputError("hf: without the name of a model: write hf:FOLDER or hf:ORGANISATION/NAME")
    folder = Path(name)
    if folder.is_dir():
        path = folder / file
        value = read_json(path) if path.is_file() else default
    elif folder.exists():
        raise InputError(f"hf:{name} is a file: give a folder, or a model of the hub")
    else:
        value = _from_hub(name, file)
        value = default if value is None else value
    if value is not default and not isinstance(value, dict):
        raise DamagedFileError(f"hf:{name}: {file} is damaged: it is not a JSON object: download it again")
    return value


@lru_cache(maxsize=32)
def _from_hub(name: str, file: str) -> Any:
    """The content of a JSON file on the hub, asked for once; ``None`` where the model has no such file."""

    import huggingface_hub
    from huggingface_hub import errors

    try:
        with hub_errors(f"hf:{name}"):
            return read_json(Path(huggingface_hub.hf_hub_download(name, file)))
    except errors.EntryNotFoundError:
        return None


# Both ----------------------------------------------------------------------------------------------------------------


def _interpolation(value: Any, name: str) -> str:
    if isinstance(value, (list, tuple)):  # timm names several, of which one is drawn in training
        value = value[0]
    named = _RESAMPLING.get(value) if isinstance(value, int) else str(value).lower()
    if named == "random":
        return "bilinear"
    if named not in _INTERPOLATIONS:
        raise InputError(
            f"{name}: its configuration resizes with {value!r}: expected one of {', '.join(_INTERPOLATIONS)}"
        )
    return named


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

"""Access to the hub: without other libraries' logs and bars, and with one line for each error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError

__all__ = ["hub_errors", "quiet"]


@contextmanager
def hub_errors(called: str) -> Iterator[None]:
    """Turns the exceptions of a download from the hub into one line; the caller handles a missing file.

    Args:
        called: the user's name of the model, such as ``"hf:ORGANISATION/NAME"``.

    Raises:
        InputError: the model does not exist, or the hub cannot be reached.
        huggingface_hub.errors.EntryNotFoundError: the model has no such file.
    """

    from huggingface_hub import errors

    try:
        with quiet():
            yield
    except errors.HFValidationError as error:
        raise InputError(
            f"{called}: no such folder, and not a valid name of a model on the hub: correct the name"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{called}: the model has no such revision on the hub: give an existing one") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"{called}: no such folder, and no such model on the hub: correct the name") from error
    except (errors.EntryNotFoundError, InputError):
        raise
    except Exception as error:  # no network, a proxy, a full disk
        raise InputError(
            f"{called}: no such folder, and the hub cannot be reached ({type(error).__name__}): download the "
            "model, and give its folder"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings, logs and progress bars of timm, transformers and huggingface_hub."""

    import logging

    loggers = [logging.getLogger(name) for name in ("transformers", "timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), _no_bars():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _no_bars() -> Iterator[None]:
    from huggingface_hub import utils

    shown = not utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            utils.enable_progress_bars()

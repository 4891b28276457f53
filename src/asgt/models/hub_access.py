"""What is asked of the hub: without other libraries' logs and bars, and with one line for whatever goes wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError

__all__ = ["hub_errors", "quiet"]


@contextmanager
def hub_errors(called: str) -> Iterator[None]:
    """Turns what a download from the hub raises into one line; a missing file is left to the caller.

    Args:
        called: how the user named the model, as ``"hf:ORGANISATION/NAME"``.

    Raises:
        InputError: there is no such model, or the hub cannot be reached.
        huggingface_hub.errors.EntryNotFoundError: the model has no such file.
    """

    from huggingface_hub import errors

    try:
        with quiet():
            yield
    except errors.HFValidationError as error:
        raise InputError(f"{called}: there is no such folder, and it is no name of a model on the hub") from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{called}: the model has no such revision on the hub") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"{called}: there is no such folder, nor such a model on the hub") from error
    except (errors.EntryNotFoundError, InputError):
        raise
    except Exception as error:  # no network, a proxy, a full disk
        raise InputError(
            f"{called}: there is no such folder, and the hub cannot be reached ({type(error).__name__}): download the "
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

"""Uploads an exported folder to a repository of the user on the hub."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError, cut, shown
from ..manifest import MANIFEST
from ..models.exported import ONNX, PROGRAM, RESULTS, export_in
from ..models.hub_access import quiet

__all__ = ["push_export", "refuse_repository"]

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def refuse_repository(name: str) -> None:
    """Refuses what cannot be the name of a repository.

    Raises:
        InputError: it is not ``ORGANISATION/NAME``.
    """

    if _REPOSITORY.fullmatch(name) is None or len(name) > 192:
        raise InputError(f"{shown(name)} is not the name of a repository: write ORGANISATION/NAME")


def push_export(folder: Path | str, repository: str, *, private: bool = False) -> str:
    """Uploads an exported folder to the hub as one commit; the repository is made if it does not exist.

    Only the files of the export are uploaded. huggingface_hub determines the login and the hub
    (``hf auth login``, ``HF_TOKEN``, ``HF_ENDPOINT``).

    Args:
        folder: as :func:`asgt.export_run` wrote it.
        repository: ``ORGANISATION/NAME``.
        private: whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        InputError: the folder is not an export, or the hub refuses it or cannot be reached.
        DamagedFileError: a file of the folder was changed.
    """

    folder = Path(folder)
    refuse_repository(repository)
    manifest = export_in(folder)
    if manifest is None:
        raise InputError(f"{folder} is not an exported model: make one with asgt export RUN --out DIR")
    manifest.check(*manifest.files)

    import huggingface_hub
    from huggingface_hub import errors

    kept = f"; the export is in {folder}"
    try:
        with quiet():
            api = huggingface_hub.HfApi()
            address = str(api.create_repo(repository, private=private or None, exist_ok=True))
            api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                allow_patterns=[*manifest.files, MANIFEST],
                delete_patterns=[ONNX, PROGRAM, f"{RESULTS}/*.json"],  # those of an earlier export
                commit_message="Upload a model exported by asgt",
            )
    except errors.LocalTokenNotFoundError as error:
        raise InputError(f"there is no login to the hub: run hf auth login, or set HF_TOKEN{kept}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        why = "has no write access: run hf auth login, or set HF_TOKEN to a token with write access"
        said = f"the current login {why}" if status in (401, 403) else cut(_first_line(error), 300)
        raise InputError(f"the hub refuses {repository} ({status}): {said}{kept}") from error
    except Exception as error:  # no network, a proxy, a full disk
        raise InputError(
            f"{repository} cannot be uploaded ({type(error).__name__}: {cut(_first_line(error), 200)}){kept}"
        ) from error
    return address


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

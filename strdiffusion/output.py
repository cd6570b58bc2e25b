"""Output folders: results are never overwritten unless the user says so."""

from pathlib import Path

from strdiffusion.errors import UserError


def claim_output_folder(folder: str | Path, allow_existing: bool, how_to: str) -> Path:
    """Create the folder, or accept it where it is empty or `allow_existing`; else raise UserError ending with `how_to`."""
    folder = Path(folder).expanduser()
    try:
        if not allow_existing and folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"the output folder {folder} already holds files, and nothing is overwritten: {how_to}")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"the output folder {folder} cannot be used: {reason}; choose another with output=FOLDER") from None
    return folder

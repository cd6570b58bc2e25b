"""The files that `inpaint` writes: one process at a time, nothing is overwritten by a race, and an interrupted folder is gone on with."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from strdiffusion.app.picture import Picture
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import Together, file_hash
from strdiffusion.system.folders import Mark, locked_files, output_folder

HOW_TO = "choose another place, or give --overwrite"


class Outputs:
    """Where pictures are written. replace: files that exist are replaced. mark: of the folder, if a whole folder is made.

    A note in the mark holds the hash of each file before it appears, so that files of an interrupted command are known as its own.
    """

    def __init__(self, replace: bool, mark: Mark | None = None, goes_on: bool = False):
        self.replace, self.mark, self.begun = replace, mark, goes_on
        self.noted: dict[str, str] = {}  # the hash of each file
        for note in mark.notes() if mark is not None and goes_on else ():
            self.noted |= {str(file): str(digest) for file, digest in note.items()}

    def is_done(self, files: Sequence[Path]) -> bool:
        """Whether the interrupted command has written these files, and they are still as it wrote them."""
        return bool(files) and all(self._is_mine(file) for file in files)

    def require_new(self, files: Sequence[Path]) -> None:
        """Raise UserError if one of the files exists and would be overwritten."""
        for file in files:
            if os.path.lexists(file) and not self.replace and not self._is_mine(file):
                raise UserError(f"{file} exists, and nothing is overwritten: {HOW_TO}")

    def write(self, pictures: Sequence[tuple[Path, Picture]]) -> None:
        """Write pictures to the disk, together. Raises UserError, also if a format cannot hold one; then the others are written."""
        problems = []
        try:
            with Together(self.replace) as files:
                for path, picture in pictures:
                    try:
                        picture.save(path, files)
                    except UserError as error:
                        problems.append(error)
                self._note(files)
        except FileExistsError as error:
            raise UserError(f"{error.filename2 or error.filename} appeared meanwhile, and nothing is overwritten: {HOW_TO}") from None
        except OSError as error:
            raise UserError(f"cannot write {pictures[0][0]}: {error.strerror}; choose another place") from None
        if problems:
            raise problems[0]

    def finish(self) -> None:
        """All is written."""
        if self.mark is not None and self.begun:
            self.mark.end()

    def _is_mine(self, file: Path) -> bool:
        return self._name(file) in self.noted and file.is_file() and file_hash(file) == self.noted[self._name(file)]

    def _note(self, files: Together) -> None:
        if self.mark is None:
            return
        if not self.begun:
            self.mark.begin()
            self.begun = True
        self.mark.note(**{self._name(path): file_hash(temporary) for temporary, path in files.waiting})

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self.mark.path.parent)) if self.mark is not None else str(file)


@contextlib.contextmanager
def outputs_in(folder: Path, key: str, files: Sequence[Path], overwrite: bool) -> Iterator[Outputs]:
    """Hold a folder for all of these files in this context. key: of the work; what it has done before is kept, unless `overwrite`.

    Raises UserError if another process writes there, or if a file exists that is not of this work.
    """
    with output_folder(folder, True, HOW_TO) as folder:
        mark = Mark(folder, key)
        outputs = Outputs(overwrite, mark, goes_on=not overwrite and mark.is_mine())
        outputs.require_new(files)
        yield outputs


@contextlib.contextmanager
def outputs_at(files: Sequence[Path], overwrite: bool) -> Iterator[Outputs]:
    """Hold single files in this context. Raises UserError if another process writes one of them, or if one exists."""
    outputs = Outputs(overwrite)
    outputs.require_new(files)
    with locked_files(files):
        outputs.require_new(files)  # now that nobody else writes them
        yield outputs

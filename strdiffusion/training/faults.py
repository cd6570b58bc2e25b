"""Files that cannot be used: training skips them, names them, and stops if there are too many."""

import logging
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset, default_collate

from strdiffusion.data import TrainingDataset
from strdiffusion.data.mask_sources import MaskError
from strdiffusion.system.distributed import gather
from strdiffusion.system.errors import UserError, one_line

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 50


class DataError(UserError):
    """The training data cannot be used; raised between two iterations, in all processes, so that the state can be saved."""


class MaskFault(str):
    """What is wrong with a mask; other faults are those of images."""


@dataclass(frozen=True)
class Loaded:
    """The tensors of one sample (None: nothing could be loaded), and what was wrong with the files skipped for it."""

    tensors: dict[str, torch.Tensor] | None
    faults: tuple[str, ...] = ()


class SkippingDataset(Dataset):
    """The samples of a TrainingDataset by running number; a file that cannot be used is replaced by another.

    Which one depends only on the seed, the running number and which files are bad. So a resumed run sees the same.
    """

    def __init__(self, dataset: TrainingDataset):
        self.dataset = dataset

    def __getitem__(self, n: int) -> Loaded:
        faults = []
        for attempt in range(MAX_ATTEMPTS):
            try:
                return Loaded(self.dataset.load(n, attempt), tuple(faults))
            except UserError as error:
                text = one_line(str(error))
                faults.append(MaskFault(text) if isinstance(error, MaskError) else text)
        return Loaded(None, tuple(faults))


def collate_samples(samples: list[Loaded]) -> tuple[dict[str, torch.Tensor] | None, list[str]]:
    """The tensors stacked to a batch (None if one could not be loaded), and all faults."""
    faults = [fault for sample in samples for fault in sample.faults]
    if any(sample.tensors is None for sample in samples):
        return None, faults
    return default_collate([sample.tensors for sample in samples]), faults


class FaultCounter:
    """The files found bad so far, by all processes. More than a share `limit` of the `images`, or of the `masks`, is too many."""

    def __init__(self, images: int, limit: float, masks: int = 0):
        self.totals, self.limit = {"files": images, "masks": masks}, limit
        self.known: dict[str, None] = {}
        self.counts = dict.fromkeys(self.totals, 0)

    def add(self, faults: list[str]) -> None:
        """Count what any process has found, and log what is new. To be called by all processes at once.

        Raises DataError, in all of them, if too many files are bad.
        """
        for fault in (fault for found in gather(faults) for fault in found):
            if fault not in self.known:
                sort = "masks" if isinstance(fault, MaskFault) else "files"
                self.known[fault] = None
                self.counts[sort] += 1
                log.warning("skipped, %s %d of %d that cannot be used: %s", sort[:-1], self.counts[sort], self.totals[sort], fault)
        for sort, number in self.counts.items():
            if number > self.limit * self.totals[sort]:
                raise DataError(
                    f"{number} of {self.totals[sort]} training {sort} cannot be used, more than data.max_bad_share={self.limit:g} of them; "
                    f"the last: {list(self.known)[-1]}"
                )

    def summary(self) -> None:
        """Log the list once more at the end."""
        if self.known:
            log.warning(
                "%d of %d files could not be used and were replaced by others: %s",
                len(self.known),
                sum(self.totals.values()),
                "; ".join(self.known),
            )

"""How the iterations of a training end: what is recorded of it, and what the user is told."""

import contextlib
import logging
from collections.abc import Iterator

from strdiffusion.system import distributed
from strdiffusion.system.errors import Stopped, UserError, one_line
from strdiffusion.training.faults import DataError, FaultCounter
from strdiffusion.training.journal import Journal
from strdiffusion.training.state import TrainingState

log = logging.getLogger(__name__)


@contextlib.contextmanager
def recorded(state: TrainingState, faults: FaultCounter, journal: Journal) -> Iterator[None]:
    """Record how the iterations in this context end, and close the journal. What the user can mend is raised as a UserError."""
    outcome = "failed"
    try:
        yield
        outcome = "finished"
    except DataError as error:
        outcome = f"failed: {one_line(str(error))}"
        if state.step:
            state.save()  # so that nothing learnt until then is lost
        distributed.fail(error)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):  # torch raises it at any moment, so the state is not saved
            raise
        outcome = "failed: a data-loading process was killed"
        raise UserError(
            "a data-loading process was killed, probably for memory: try fewer data.workers, or data.workers=0; "
            "resume=auto continues from the last checkpoint"
        ) from None
    except Stopped as stopped:
        outcome = str(stopped)
        log.info("%s at iteration %d, saved in %s: continue with resume=auto", stopped, state.step, state.files.path)
        raise
    except UserError as error:
        outcome = f"failed: {one_line(str(error))}"
        raise
    finally:
        faults.summary()
        with contextlib.suppress(UserError):  # a full disk, for example, which ended the run
            journal.status(state.step, outcome)
        journal.close()

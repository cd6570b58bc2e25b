"""A model learns from the visitor's picture before it fills it."""

import time
from collections.abc import Callable

from strdiffusion.app import Cancelled, StrDiffusion
from strdiffusion.app.adapting import Adapting, AdaptOptions, adapt, require_networks
from strdiffusion.app.inputs import Inputs
from strdiffusion.app.web.job import LearningStep
from strdiffusion.app.web.photo import preview_of

ENDLESS = 10**6  # iterations: the time decides
EVERY = 20.0  # seconds between two previews
PREVIEW_STEPS = 2
PREVIEWED = 2_000_000  # pixels: larger pictures are not filled again and again


class Learning:
    """How a model learns. minutes: for how long. Raises UserError if its method cannot."""

    def __init__(self, base: StrDiffusion, minutes: int):
        require_networks(base)
        self.base, self.minutes = base, minutes

    def learn(self, inputs: Inputs, seed: int, callback: Callable[[LearningStep], None], cancel: Callable[[], bool]) -> StrDiffusion:
        """The model after it has learnt from what is known of a picture. Raises Cancelled, or UserError if there is nothing to learn."""
        looked, preview = time.monotonic(), None

        def watch(adapting: Adapting) -> bool:
            nonlocal looked, preview
            if cancel():
                return False
            if inputs.known.size <= PREVIEWED and time.monotonic() - looked > EVERY:
                filled = adapting.current()(inputs.picture, ~inputs.known, seed=seed, steps=PREVIEW_STEPS, cancel=cancel).images[0]
                looked, preview = time.monotonic(), preview_of(filled).levels[..., :3]
            callback(LearningStep(adapting.done, preview))
            return True

        how = AdaptOptions(iterations=ENDLESS, minutes=self.minutes, seed=seed)
        adapted = adapt(self.base, [inputs], how, watch=watch, progress=False)  # the page shows it, and the terminal is the server's
        if cancel():
            raise Cancelled
        return adapted

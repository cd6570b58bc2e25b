"""All options of sampling, and the sampler that they choose. The options of each sampler are the fields of its class."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from strdiffusion.samplers.adaptive import Paper, Released
from strdiffusion.samplers.grid import TimeGrid
from strdiffusion.samplers.joint import Joint
from strdiffusion.samplers.plain import Guided, Unguided
from strdiffusion.samplers.repaint import Fixed, Repaint, jump_range
from strdiffusion.samplers.sampling import Sampler, Stepping
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import Option, UserError

Resampling = Literal["none", "released", "paper", "repaint", "fixed"]
SCORED = ("released", "paper")  # a discriminator decides
OF_STRUCTURE = (*SCORED, "fixed")  # the structure is denoised again


@dataclass
class SamplerConfig(Stepping):
    """How images are sampled: steps as in `Stepping`, and the resampling with its options. IR-SDE supports only `none` and `repaint`.

    clip: clamp every predicted x0 to [0,1], for briefly trained networks; the release does not.
    """

    renamed_keys: ClassVar[dict[str, str]] = {"step": "solver", "method": "solver"}

    clip: bool = False
    resampling: Resampling = "released"
    released: Released = field(default_factory=Released)
    paper: Paper = field(default_factory=Paper)
    repaint: Repaint = field(default_factory=Repaint)
    fixed: Fixed = field(default_factory=Fixed)

    @property
    def scored(self) -> bool:
        """Whether a discriminator decides."""
        return self.resampling in SCORED

    def sampler(self, guided: bool, joint: bool = False) -> Sampler:
        """The chosen sampler."""
        if joint:
            return Joint()
        if self.resampling == "none":
            return Guided() if guided else Unguided()
        return getattr(self, self.resampling)

    def grid(self, sde: MeanRevertingSDE, begin: int | None = None) -> TimeGrid:
        """The times that the sampler visits, from T or from the time `begin`."""
        return TimeGrid(sde, self.steps, self.spacing, begin, self.ahead)

    def check(self, sde: MeanRevertingSDE, guided: bool, joint: bool = False) -> None:
        """Check the keys that depend on each other or on the SDE. Raises UserError."""
        if joint and (self.resampling != "none" or self.spacing != "t"):
            raise UserError("method=joint denoises texture and structure once: set sampler.resampling=none and sampler.spacing=t")
        if self.ahead > (sde.T if joint else 0):
            raise UserError(f"sampler.ahead={self.ahead} must be at most T={sde.T} with method=joint, and 0 with other methods")
        if not guided and self.resampling in OF_STRUCTURE:
            chosen, none = (Option("sampler.resampling", value) for value in (self.resampling, "none"))
            raise UserError(chosen, " resamples the structure, but IR-SDE has none: set ", none)
        if self.steps is not None and self.steps > sde.T:
            raise UserError(Option("sampler.steps"), f" must be from 2 to sde.T={sde.T}, not {self.steps}")
        if self.resampling == "repaint":
            self._check_repaint(self.grid(sde), guided)

    def _check_repaint(self, grid: TimeGrid, guided: bool) -> None:
        start = grid.T if self.repaint.start is None else self.repaint.start
        room = 0
        if max(start, self.repaint.stop) <= grid.T:
            first, last = jump_range(grid, start, self.repaint.stop, guided)
            room = first - last
        if room < self.repaint.jump_length:
            raise UserError(
                f"sampler.repaint leaves no room for a jump: from start {start} down to stop {self.repaint.stop}"
                f"{' and above the late stage' if guided else ''} there must be at least jump_length={self.repaint.jump_length} steps"
                f" (there are {max(room, 0)}), and start must not exceed sde.T={grid.T}"
            )


def with_method(tree: dict, where: str) -> dict:
    """The tree of options with `method` instead of the old key sampler.guidance, of which false means IR-SDE. Raises UserError if they
    contradict each other.
    """
    sampler = tree.get("sampler")
    if not isinstance(sampler, dict) or "guidance" not in sampler:
        return tree
    guided = sampler["guidance"]
    if not isinstance(guided, bool):
        raise UserError(
            f"{where}: sampler.guidance must be true or false, not {guided!r}; it is the old form of method: strdiffusion, or irsde"
        )
    earlier = "strdiffusion" if guided else "irsde"
    method = tree.get("method", earlier)
    if method != earlier and method in ("strdiffusion", "irsde"):
        raise UserError(
            f"{where}: sampler.guidance={str(guided).lower()} means method={earlier}, but method={method} is given: remove one of them"
        )
    return tree | {"method": method, "sampler": {key: value for key, value in sampler.items() if key != "guidance"}}

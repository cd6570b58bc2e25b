"""The times that a sampler visits: every t of 1..T as released, or fewer."""

from typing import Literal

import torch

from strdiffusion.sde import MeanRevertingSDE

Spacing = Literal["t", "log_snr"]


class TimeGrid:
    """N steps from T to 0. `grid[n]` is the time with n steps left: grid[N] = T, grid[0] = 0.

    Samplers count in n. If every t of 1..T is visited, as released, n equals t.

    Args:
        steps: N, from 2 to T; None for T steps.
        spacing: "t": evenly spaced in t; "log_snr": the times from T to 1 evenly spaced in L = ln(alpha/sigma), then 0
            (spec sec. 8; L is infinite at 0). Times are distinct integers: near 0, where L changes more between t and t-1
            than between two times of the grid, every t is visited.
        begin: leave out the times above this one, but keep the end of the early stage; None: keep all.
        ahead: of the joint form (spec sec. 11): grid[n] runs from T + ahead to 0, evenly spaced; `texture` and `structure` tell the time
            of each part. 0: both are grid[n].

    Raises ValueError if `steps` is not in 2..T.
    """

    def __init__(self, sde: MeanRevertingSDE, steps: int | None = None, spacing: Spacing = "t", begin: int | None = None, ahead: int = 0):
        if steps is not None and not 2 <= steps <= sde.T:
            raise ValueError(f"the number of steps must be from 2 to T={sde.T}, not {steps}")
        self.T, self.ahead, self.first = sde.T, ahead, sde.T + ahead
        self.N = steps or self.first
        even_in_snr = spacing == "log_snr" and self.N < self.T and not ahead
        wanted = even_in_log_snr(sde, self.N) if even_in_snr else even_in_t(self.first, self.N)
        times = [self.first]
        for n in range(self.N - 1, 0, -1):  # each below the time before it, and large enough for n distinct times
            times.append(min(times[-1] - 1, max(wanted[n], n)))
        self.times: tuple[int, ...] = (0, *reversed(times))
        # the last n of the early stage, in which the structure is denoised together with the texture: t >= int(0.4 T)
        self.early_end = self.at_or_after(early_end(self.T))
        if begin is not None:
            self.N = max(self.at_or_before(begin), self.early_end)
            self.times = self.times[: self.N + 1]

    def __getitem__(self, n: int) -> int:
        return self.times[n]

    def texture(self, n: int) -> int:
        """The time of the texture with n steps left."""
        return self.parts(self.times[n])[0]

    def structure(self, n: int) -> int:
        """The time of the structure with n steps left."""
        return self.parts(self.times[n])[1]

    def parts(self, time: int) -> tuple[int, int]:
        """The times of texture and structure at a time of the grid. The texture waits at T until the structure is `ahead`; the structure
        waits at 1 until the texture is there, too.
        """
        return min(time, self.T), max(time - self.ahead, 1) if time else 0

    def at_or_after(self, t: int) -> int:
        """The n of the smallest time of the grid that is >= t, for t <= T."""
        return next(n for n, time in enumerate(self.times) if time >= t)

    def at_or_before(self, t: int) -> int:
        """The n of the largest time of the grid that is <= t, for t >= 0."""
        return max(n for n, time in enumerate(self.times) if time <= t)


def early_end(T: int) -> int:
    """The last t of the early stage on the full grid: int(0.4 T) (spec sec. 7)."""
    return max(int(0.4 * T), 1)


def even_in_t(T: int, N: int) -> list[int]:
    """n T / N for n = 0..N, rounded."""
    return [(2 * n * T + N) // (2 * N) for n in range(N + 1)]


def even_in_log_snr(sde: MeanRevertingSDE, N: int) -> list[int]:
    """For n = 1..N the t whose L is nearest to L_1 + (L_T - L_1) (n-1) / (N-1); 0 for n = 0. N < T."""
    L = -sde.log_snr[1:]  # grows with t
    wanted = torch.linspace(L[0].item(), L[-1].item(), N, dtype=L.dtype)
    above = torch.searchsorted(L, wanted).clamp(1, sde.T - 1)
    nearer_below = wanted - L[above - 1] < L[above] - wanted
    return [0, *(1 + above - nearer_below.long()).tolist()]

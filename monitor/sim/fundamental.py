"""The fundamental price of every asset: clustered volatility, jumps, correlation under stress.

In levels (1 bp of log price) relative to the first price, after model.md C1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from monitor.sim.chance import Draws
from monitor.sim.parameters import LEVEL, Asset, Parameters
from monitor.sim.scenarios import News

_DAY_S = 86_400.0
# A jump reaches the price within a few seconds, not within one step: makers re-quote in stages.
_JUMP_S = 3.0
_JUMP_MAX = 0.06
# Log volatility stays within so many of its deviations: a day of 14 % would be outside all records.
_CALM_SD = 2.0
# How patiently the market digests news varies by the hour.
_PATIENCE_S = 3_600.0
# The grid of prices ends at 0.61; further out the fundamental is held.
_REACH_LEVELS = 5_000.0
# With this share a jump hits all assets, scaled by beta.
_COMMON_JUMP = 0.7


class Fundamental:
    """Steps the fundamental of all assets; `level` is its position, `stress` the volatility ratio.

    `calm` is today's diffusive volatility over its long-run value, one number for all assets;
    `stress` is the same with the unrest that jumps and news leave behind for a while.
    """

    def __init__(
        self,
        assets: tuple[Asset, ...],
        parameters: Parameters,
        *,
        seed: int,
        step_s: float,
        news: tuple[News, ...] = (),
    ) -> None:
        count = len(assets)
        self._parameters, self._step_s, self._news = parameters, step_s, news
        self._names = [a.name for a in assets]
        self._beta = np.array([a.beta for a in assets])
        daily = np.array([a.volatility_daily for a in assets]) * parameters.volatility_scale
        self.sigma: NDArray[np.float64] = daily / LEVEL / math.sqrt(_DAY_S)
        self._returns = Draws(seed, "returns", kind="normal", width=count + 1)
        self._shock = Draws(seed, "volatility", kind="normal", width=2)
        self._jumps = Draws(seed, "jumps", kind="uniform", width=count + 1)
        self._sizes = Draws(seed, "jump_sizes", kind="student", width=count + 1)
        self.level: NDArray[np.float64] = np.zeros(count)
        self._pending = np.zeros((2, count))
        # The day begins anywhere in the volatility's long-run distribution.
        first, patience = self._shock.row().tolist()
        self._log_volatility = parameters.volatility_sd * min(max(first, -_CALM_SD), _CALM_SD)
        self._patience = patience
        self.calm = self.stress = self._calm_now()
        self._unrest = 0.0
        self._elapsed_s = 0.0

    def step(self) -> NDArray[np.float64]:
        """Advance by one step; returns the level of every asset."""
        p, dt = self._parameters, self._step_s
        keep = 0.5 ** (dt / p.volatility_half_life_s)
        spread = p.volatility_sd * math.sqrt(1 - keep * keep)
        shock, patience = self._shock.row().tolist()
        bound = p.volatility_sd * _CALM_SD
        moved = self._log_volatility * keep + spread * shock
        self._log_volatility = min(max(moved, -bound), bound)
        lasts = math.exp(-dt / _PATIENCE_S)
        self._patience = self._patience * lasts + math.sqrt(1 - lasts * lasts) * patience
        self.calm = self._calm_now()
        self.stress = self.calm * (1.0 + self._unrest)
        share = p.common_share if self.stress < 1.5 else p.common_share_stress
        normal = self._returns.row()
        mixed = math.sqrt(share) * normal[0] + math.sqrt(1 - share) * normal[1:]
        move = self.sigma * (self.stress * math.sqrt(dt)) * mixed
        news = self._jump() + self._scheduled()
        slow = round(p.slow_news_share ** math.exp(p.slow_news_sd * self._patience), 9)
        self._pending[0] += (1.0 - slow) * news
        self._pending[1] += slow * news
        parts = self._pending * np.array([[min(1.0, dt / s)] for s in (_JUMP_S, p.slow_news_s)])
        self._pending -= parts
        released = parts[0] + parts[1]
        self.level = np.clip(self.level + move + released, -_REACH_LEVELS, _REACH_LEVELS)
        self._elapsed_s += dt
        self._upset(released)
        return self.level

    def _calm_now(self) -> float:
        """Shifted so that the mean square of the volatility is its long-run square."""
        return round(math.exp(self._log_volatility - self._parameters.volatility_sd**2), 9)

    def _upset(self, released: NDArray[np.float64]) -> None:
        """Jumps make the market nervous in proportion to their size in one-minute sigmas."""
        p, dt = self._parameters, self._step_s
        usual = self.sigma * (self.calm * math.sqrt(60.0))
        worst = float(np.max(np.abs(released) / usual))
        raised = self._unrest * math.exp(-dt / p.unrest_s) + p.unrest_gain * worst
        self._unrest = round(min(raised, p.unrest_max), 9)

    def _jump(self) -> NDArray[np.float64]:
        p = self._parameters
        # Jumps breed jumps through unrest once, not twice: squared, some days would run away.
        rate = p.jumps_per_day / _DAY_S * self._step_s * self.calm * self.stress
        hit, size = self._jumps.row(), self._sizes.row()
        limit = _JUMP_MAX / LEVEL
        moves = np.clip(size * (p.jump_size / LEVEL), -limit, limit)
        common = np.where(hit[0] < rate * _COMMON_JUMP, moves[0], 0.0) * self._beta
        own = np.where(hit[1:] < rate * (1 - _COMMON_JUMP), moves[1:], 0.0)
        total: NDArray[np.float64] = common + own
        return total

    def _scheduled(self) -> NDArray[np.float64]:
        """What the scenario's news add in this step, in levels."""
        total = np.zeros(len(self._names))
        for news in self._news:
            first = max(self._elapsed_s, news.start_s)
            last = min(self._elapsed_s + self._step_s, news.start_s + news.over_s)
            if last <= first:
                continue
            part = news.move / LEVEL * (last - first) / news.over_s
            for a, name in enumerate(self._names):
                if news.asset is None:
                    total[a] += part * self._beta[a]
                elif news.asset == name:
                    total[a] += part
        return total


def past_path(
    assets: tuple[Asset, ...],
    parameters: Parameters,
    generator: np.random.Generator,
    *,
    steps: int,
    step_s: float,
) -> NDArray[np.float64]:
    """A price history that ends at level 0, shape (steps, assets), for the first population."""
    keep = 0.5 ** (step_s / parameters.volatility_half_life_s)
    sd = parameters.volatility_sd
    shocks = (sd * math.sqrt(1 - keep * keep) * generator.standard_normal(steps)).tolist()
    log_volatility, stress = 0.0, []
    for shock in shocks:
        log_volatility = log_volatility * keep + shock
        stress.append(round(math.exp(log_volatility - sd * sd), 9))
    normal = generator.standard_normal((steps, len(assets) + 1))
    share = parameters.common_share
    mixed = math.sqrt(share) * normal[:, :1] + math.sqrt(1 - share) * normal[:, 1:]
    # The past includes its jumps: without them every survivor would stand too close.
    daily = np.array([math.hypot(a.volatility_daily, 0.02 * a.beta) for a in assets])
    sigma = daily / LEVEL * math.sqrt(step_s / _DAY_S)
    path = np.cumsum(mixed * sigma * np.array(stress)[:, None], axis=0)
    result: NDArray[np.float64] = path - path[-1]
    return np.clip(result, -_REACH_LEVELS, _REACH_LEVELS)

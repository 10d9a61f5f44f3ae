"""Shipped coefficients of the forecast; only numbers live here.

Written by ``cascade-monitor backtest fit`` (`monitor.backtest.fit`): ridge logistic regression per
horizon with the signs of `RISING` and `FALLING`, calibrated on seeds of their own, on the causal
label of the simulated market; `Model.made` says on what. What they are worth is in docs/skill.md.
`base` is a judgement of the order of magnitude (model.md E21 and C2), not a count.
"""

from typing import Final

from monitor.core.forecast.model import Calibration, Model, Variant

LABEL_SIGMAS: Final = 6.0
"""The baseline's move, in standard deviations of 5 minutes (model.md A12, k of the label)."""

HAR_PRIOR: Final[dict[int, tuple[float, ...]]] = {
    60: (0.0, 0.25, 0.3, 0.3, -0.05, 0.05, 0.2),
    300: (0.0, 0.12, 0.28, 0.4, -0.05, 0.05, 0.3),
    900: (0.0, 0.06, 0.22, 0.45, -0.08, 0.05, 0.5),
    3600: (0.0, 0.03, 0.12, 0.45, -0.1, 0.05, 0.8),
}

_MEANS: Final = (
    (
        -1.117597616,
        -4.836209659,
        -8.609775049,
        -9.361133439,
        -0.07307074904,
        0.08251337463,
        1.65381939,
        0.2457553566,
        0.0,
        0.0,
        0.0,
        0.396386125,
        0.0,
        0.0,
    ),
    (
        -0.519058306,
        -3.557260196,
        -8.692095555,
        -9.403254949,
        -0.09130756507,
        0.07804867615,
        1.685298639,
        0.2451780081,
        0.0,
        0.0,
        0.0,
        0.4398426719,
        0.0,
        0.0,
    ),
    (
        0.3873036512,
        -2.507819941,
        -9.175155445,
        -9.58226159,
        0.0,
        0.03936464946,
        1.850236108,
        0.2680015621,
        0.0,
        0.0,
        0.0,
        0.5361436027,
        0.0,
        0.0,
    ),
)
_SCALES: Final = (
    (
        1.692039589,
        2.797105641,
        0.9143475984,
        0.4526730786,
        0.3195243177,
        0.1327376259,
        0.643025853,
        0.3526810249,
        1.0,
        1.0,
        1.0,
        0.727749845,
        1.0,
        1.0,
    ),
    (
        1.623946297,
        2.219173903,
        0.9033031125,
        0.443301677,
        0.352443712,
        0.1325325024,
        0.6372558786,
        0.3523976416,
        1.0,
        1.0,
        1.0,
        0.750718271,
        1.0,
        1.0,
    ),
    (
        1.734998174,
        1.151651146,
        0.7180136238,
        0.3857886152,
        1.0,
        0.09707321991,
        0.6156781664,
        0.3676792604,
        1.0,
        1.0,
        1.0,
        0.8141007572,
        1.0,
        1.0,
    ),
)

MODEL: Final = Model(
    version="sim-4",
    made="simulated seeds 200-239, markets first and second, 80 runs of 90 minutes, 83 causal onsets; positive rows 374/957/1223 of 10816/9511/3713 over 5, 15 and 60 minutes; moved from their base rates 0.0346/0.101/0.329 to 0.001/0.003/0.01",
    base=(0.001, 0.003, 0.01),
    map=Variant(
        intercepts=(-3.5954934803756413, -2.18344023337103, -0.5034021081467878),
        weights=(
            (
                0.5993538811,
                0.1482303015,
                0.0,
                -0.1864218534,
                -0.2131557763,
                0.0,
                0.0,
                0.3880330278,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
            ),
            (
                0.2432131978,
                0.02291773518,
                0.0,
                -0.2147716183,
                -0.04138339944,
                0.0,
                0.0,
                0.5028348189,
                0.0,
                0.0,
                0.0,
                0.02148245698,
                0.0,
                0.0,
            ),
            (
                0.09149284068,
                0.0,
                0.0,
                -0.05826429322,
                0.0,
                0.0,
                0.0,
                0.3069335483,
                0.0,
                0.0,
                0.0,
                0.002464455913,
                0.0,
                0.0,
            ),
        ),
        means=_MEANS,
        scales=_SCALES,
        calibrations=(
            Calibration(
                slope=1.0166794460023758, intercept=-4.017278996473394, knots=(), values=()
            ),
            Calibration(
                slope=0.9967496699680866, intercept=-4.187266945633479, knots=(), values=()
            ),
            Calibration(
                slope=1.0976725213552854, intercept=-4.365104680324237, knots=(), values=()
            ),
        ),
    ),
    baseline=Variant(
        intercepts=(-3.175600632581617, -2.0287724959379476, -0.49921886933452386),
        weights=(
            (
                0.0,
                0.1054570019,
                0.02663824915,
                -0.2621223083,
                -0.2554634998,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.04579905052,
                0.0,
                0.0,
            ),
            (
                0.0,
                0.01458166828,
                0.0,
                -0.2658662111,
                -0.05671662169,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.06262604633,
                0.0,
                0.0,
            ),
            (
                0.0,
                0.0,
                0.0,
                -0.06513303751,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
                0.002818302513,
                0.0,
                0.0,
            ),
        ),
        means=_MEANS,
        scales=_SCALES,
        calibrations=(
            Calibration(
                slope=0.8592359825475985, intercept=-4.613972670646052, knots=(), values=()
            ),
            Calibration(
                slope=0.9206864736057464, intercept=-4.403281271550513, knots=(), values=()
            ),
            Calibration(
                slope=0.9839602901285801, intercept=-4.497167888993961, knots=(), values=()
            ),
        ),
    ),
)

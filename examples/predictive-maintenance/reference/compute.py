"""Computes the reference tables with numpy and scipy; shares no code with the functions of this example.

usage: compute.py [FOLDER]    FOLDER holds the vibration recordings; without it only the temperature table is made
"""

import csv
import gzip
import math
import sys
from pathlib import Path

import numpy as np
from scipy import io, signal, stats

HERE = Path(__file__).parent
RATE_HZ = 12_000
WINDOW = 4_096
# Multiples of the running speed as the Bearing Data Center lists them for the drive end.
LISTED = {"inner-race": 5.4152, "outer-race": 3.5848, "ball": 4.7135}
RECORDINGS = [
    ("motor-healthy", "Normal_0.mat", "healthy"),
    ("motor-inner", "IR007_0.mat", "inner-race"),
    ("motor-outer", "OR007@6_0.mat", "outer-race"),
    ("motor-ball", "B007_0.mat", "ball"),
]


def variable(recording, ending):
    return next(value for name, value in recording.items() if name.endswith(ending)).ravel()


def windows(samples):
    return samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW)


def features(window, shaft_hz):
    centred = window - window.mean()
    rms = math.sqrt(np.mean(centred**2))
    # Impacts: a Butterworth band-pass, forwards and backwards, and the analytic signal.
    band = signal.butter(8, [2_000, 0.48 * RATE_HZ], "bandpass", fs=RATE_HZ, output="sos")
    impacts = signal.sosfiltfilt(band, centred)
    squared = np.abs(signal.hilbert(impacts)) ** 2
    length = 8 * WINDOW
    spectrum = np.abs(np.fft.rfft((squared / squared.mean() - 1) * np.hanning(WINDOW), length))
    hz = np.fft.rfftfreq(length, 1 / RATE_HZ)
    return {
        "rms": rms,
        "crest": np.abs(centred).max() / rms,
        "kurtosis": stats.kurtosis(centred, fisher=False),
        "impact_level_db": 20 * math.log10(math.sqrt(np.mean(impacts**2))),
        **{part: prominence(hz, spectrum, multiple * shaft_hz, shaft_hz) for part, multiple in LISTED.items()},
    }


def prominence(hz, spectrum, fault_hz, shaft_hz):
    """Peak near the expected line over the median of its neighbourhood, the mean of three harmonics' decibels."""
    ratios = []
    for harmonic in (1, 2, 3):
        around = harmonic * fault_hz
        near = np.abs(hz - around) <= max(0.01 * around, 0.75 * RATE_HZ / WINDOW)
        neighbours = np.abs(hz - around) <= shaft_hz
        ratios.append(20 * math.log10(spectrum[near].max() / np.median(spectrum[neighbours])))
    return sum(ratios) / len(ratios)


def limits(taught):
    def limit(values):
        return np.mean(values) + max(5 * np.std(values, ddof=1), 6)

    return {name: limit([one[name] for one in taught]) for name in ("impact_level_db", *LISTED)}


def verdict(found, limit):
    standing = [part for part in LISTED if found[part] > limit[part]]
    if standing:
        return max(standing, key=lambda part: found[part])
    return "ball" if found["impact_level_db"] > limit["impact_level_db"] else "healthy"


def vibration(folder):
    """The first half of the healthy recording teaches, the second half of each recording is judged."""
    limit = None
    rows = []
    for machine, file, truth in RECORDINGS:
        recording = io.loadmat(folder / file)
        shaft_hz = variable(recording, "RPM")[0] / 60
        found = [features(window, shaft_hz) for window in windows(variable(recording, "_DE_time"))]
        half = len(found) // 2
        limit = limit or limits(found[:half])
        for index, one in enumerate(found[half:], half):
            waveform = (f"{one[name]:.6g}" for name in ("rms", "crest", "kurtosis"))
            rows.append([machine, index * WINDOW, truth, *waveform, verdict(one, limit)])
    write("vibration.csv", ["machine", "position", "truth", "rms", "crest", "kurtosis", "verdict"], rows)


def temperature():
    """The rule of the example's README, over the whole series at once."""
    with gzip.open(HERE / "../data/machine_temperature.csv.gz", "rt") as file:
        times, texts = zip(*list(csv.reader(file))[1:])
    values = np.array(texts, dtype=float)
    count = np.arange(1, len(values) + 1)

    def weights(hours):
        return np.maximum(1 - 0.5 ** (5 / 60 / hours), 1 / count)

    slow = weights(168)
    recent = usual = spread = 0.0
    alarmed = False
    rows = []
    for index, (value, fast) in enumerate(zip(values, weights(4))):
        recent += fast * (value - recent)
        distance = (recent - usual) / max(spread, 0.5)
        deviation = value - usual
        if index >= 24:
            deviation = np.clip(deviation, -2 * max(spread, 0.5), 2 * max(spread, 0.5))
        usual_before = usual
        usual += slow[index] * deviation
        if index > 0:
            spread += slow[index] * (math.sqrt(math.pi / 2) * abs(deviation) - spread)
        if abs(distance) < 1.5:
            alarmed = False
        if index >= 750 and not alarmed and abs(distance) >= 3:
            alarmed = True
            rows.append([times[index], "below" if recent < usual_before else "above"])
    write("temperature.csv", ["time", "side"], rows)


def write(name, head, rows):
    with open(HERE / name, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])
    print(f"{name}: {len(rows)} rows")


temperature()
if len(sys.argv) > 1:
    vibration(Path(sys.argv[1]))

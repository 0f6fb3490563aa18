"""Log-mel bands: ours against those of kaldi-native-fbank and of librosa, in speed and in values.

    python benchmarks/mel.py [seconds=10] [rows=6] [threads=1,2] [repeats=15] [peers=FOLDER]

`peers` is a folder that the two were installed into, apart from this environment:
`pip install --target FOLDER kaldi-native-fbank librosa`. Rows are noise with tones. All take turns, so that a
busy machine is as busy for each; the median counts. Kaldi's part works on one row on one thread, and gets its
rows from as many Python threads as ours has. Handing samples over to it takes time, too, which is told apart:
what is left is its own work. Values are compared at the same settings, as natural logarithms of mel power.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch

from modalities.speech.mel import FLOOR, FULL_SCALE, LogMelEncoder, StackedMelEncoder

RATE_HZ, BINS, LOWEST_HZ = 16_000, 80, 20.0
OURS, STACKED, KALDI, KALDI_PLAIN, HANDED, LIBROSA = (
    "ours, log-mel", "ours, as Kaldi's default", "kaldi-native-fbank, default", "kaldi-native-fbank, log-mel",
    "  of it, samples handed over", "librosa",
)  # fmt: skip
Work = Callable[[], object]


def main() -> None:
    """Measure as the command line says."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    sys.path.append(words.get("peers", ""))
    rows, seconds = int(words.get("rows", 6)), float(words.get("seconds", 10))
    audio = made_up(rows, round(seconds * RATE_HZ))
    with torch.inference_mode():
        for threads in map(int, words.get("threads", "1,2").split(",")):
            torch.set_num_threads(threads)
            with ThreadPoolExecutor(threads) as pool:
                found = measured(works(audio, pool), int(words.get("repeats", 15)))
            show(found, rows * seconds, threads)
        for line in differences(audio):
            print(line)


def made_up(rows: int, size: int) -> np.ndarray:
    """Rows of amplitudes: a tone that rises, in noise."""
    rng = np.random.default_rng(0)
    steps = np.arange(size) / RATE_HZ
    tones = [0.3 * np.sin(2 * np.pi * (100 + 50 * row + 200 * steps) * steps) for row in range(rows)]
    return (np.array(tones) + 0.01 * rng.standard_normal((rows, size))).astype(np.float32)


def works(audio: np.ndarray, pool: ThreadPoolExecutor) -> dict[str, Work]:
    """What is timed, by name; peers only where they are installed."""
    inputs, lengths = torch.from_numpy(audio), torch.full((len(audio),), audio.shape[1])
    found: dict[str, Work] = {
        OURS: partial(LogMelEncoder().picture, inputs, lengths),
        STACKED: partial(StackedMelEncoder().picture, inputs, lengths),
    }
    try:
        for name, settings in (
            (KALDI, DEFAULT),
            (KALDI_PLAIN, PLAIN),
            (HANDED, {**PLAIN, "frame_shift_ms": 1e4}),
        ):
            options = kaldi_options(settings)
            found[name] = lambda options=options: [*pool.map(partial(kaldi, options), audio * FULL_SCALE)]
    except ImportError as error:
        print(f"without kaldi-native-fbank: {error}")
    try:
        from librosa.feature import melspectrogram

        found[LIBROSA] = lambda: np.log(librosa_power(melspectrogram, audio) + FLOOR)
    except ImportError as error:
        print(f"without librosa: {error}")
    return found


DEFAULT: Mapping[str, Any] = {"dither": 0.0, "preemph_coeff": 0.97, "window_type": "povey"}
PLAIN = {**DEFAULT, "preemph_coeff": 0.0, "window_type": "hanning", "remove_dc_offset": False}


def kaldi_options(settings: Mapping[str, Any]) -> Any:
    """Kaldi's options: 80 bands from 20 Hz to half the rate, in windows of 25 ms every 10 ms."""
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.mel_opts.num_bins, options.mel_opts.low_freq = BINS, LOWEST_HZ
    for name, value in settings.items():
        setattr(options.frame_opts, name, value)
    return options


def kaldi(options: Any, row: np.ndarray) -> np.ndarray:
    """The bands of a row."""
    import kaldi_native_fbank

    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(RATE_HZ, row)
    computer.input_finished()
    return np.stack([computer.get_frame(number) for number in range(computer.num_frames_ready)])


def librosa_power(melspectrogram: Callable[..., np.ndarray], audio: np.ndarray) -> np.ndarray:
    """Mel power of all rows."""
    settings = {"n_fft": 512, "win_length": 400, "hop_length": 160, "center": False, "window": "hann"}
    bands = {"n_mels": BINS, "fmin": LOWEST_HZ, "htk": True, "norm": None}
    return melspectrogram(y=audio, sr=RATE_HZ, power=2.0, **settings, **bands)


def measured(work: dict[str, Work], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each by the clock and of a core, taken in turns.

    A turn is two calls, and the second counts: the first finds the others' arrays in the cache.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, each in work.items():
            each()
            began, busy = time.perf_counter(), time.process_time()
            each()
            times[name].append((time.perf_counter() - began, time.process_time() - busy))
    return times


def show(times: dict[str, list[tuple[float, float]]], seconds: float, threads: int) -> None:
    """A line for each: medians by the clock and of a core, and how often faster than real time."""
    print(f"\n{threads} thread{'s' * (threads > 1)}, {seconds:g} s of sound")
    for name, found in times.items():
        clock, core = (statistics.median(column) for column in zip(*found, strict=True))
        speed = f"{seconds / clock:8,.0f} x real time"
        print(f"{name:28} {1e3 * clock:8.2f} ms ({1e3 * core:8.2f} ms of cores) {speed}")


def differences(audio: np.ndarray) -> list[str]:
    """How far our values are from Kaldi's at the same settings."""
    inputs, lengths = torch.from_numpy(audio), torch.full((len(audio),), audio.shape[1])
    try:
        default, plain = kaldi_options(DEFAULT), kaldi_options(PLAIN)
    except ImportError:
        return []
    plain.use_log_fbank = False
    power = np.stack([kaldi(plain, row) for row in audio])
    mean_free = np.stack([kaldi(default, row * np.float32(FULL_SCALE)) for row in audio])
    mean_free -= mean_free.mean(1, keepdims=True)
    mean_free /= np.sqrt(mean_free.var(1, ddof=1, keepdims=True) + 1e-7)
    ours = LogMelEncoder().log_mel(inputs, lengths).numpy()
    stacked, theirs = StackedMelEncoder().picture(inputs, lengths).numpy(), np.log(power + FLOOR)
    exact, scaled = in_float64(LogMelEncoder, audio), in_float64(StackedMelEncoder, audio)
    return [
        "",
        f"log-mel: at most {np.abs(ours - theirs).max():.1e} from kaldi-native-fbank; from float64, ours "
        f"{np.abs(ours - exact).max():.1e}, theirs {np.abs(theirs - exact).max():.1e}",
        f"as Kaldi's default, scaled over the row: at most {np.abs(stacked - mean_free).max():.1e}; from "
        f"float64, ours {np.abs(stacked - scaled).max():.1e}, theirs {np.abs(mean_free - scaled).max():.1e}",
    ]


def in_float64(kind: type[LogMelEncoder] | type[StackedMelEncoder], audio: np.ndarray) -> np.ndarray:
    """The values of an encoder of ours, computed in double precision."""
    encoder, inputs = kind().double(), torch.from_numpy(audio).double()
    if isinstance(encoder, LogMelEncoder):
        return (encoder.mel_power(inputs) + FLOOR).log().numpy()
    bands = encoder.mel_power(inputs * FULL_SCALE).log()
    return ((bands - bands.mean(1, keepdim=True)) / bands.std(1, keepdim=True)).numpy()


if __name__ == "__main__":
    main()

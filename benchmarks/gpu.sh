#!/bin/sh
# What a machine with one GPU does, in at most eight minutes: installs, tests, measures, trains.
#   sh benchmarks/gpu.sh OUT [DATA]     OUT gets gpu.json, gpu.md and the runs; DATA: a prepared folder of speech
# Without DATA the demo corpus is brought. SECONDS_IN_ALL=480 and SIZES="base xl" may be set.
set -eu
out=$1
data=${2:-}
began=$(date +%s)
mkdir -p "$out"
python=${PYTHON:-python3}
if ! "$python" -c "import torch, omegaconf, pyarrow, safetensors, soundfile, jaxtyping, pytest" 2>/dev/null; then
    "$python" -m venv --system-site-packages "$out/venv"
    python=$out/venv/bin/python
    "$python" -m pip install --quiet --editable '.[audio,dev]'
fi
"$python" -m pytest -q -m gpu tests 2>&1 | tail -n 20 | tee "$out/tests.txt"
"$python" benchmarks/gpu.py "out=$out" ${data:+"data=$data"} "began=$began" \
    "seconds=${SECONDS_IN_ALL:-480}" "sizes=${SIZES:-base xl}" "device=${DEVICE:-cuda}"

#!/bin/sh
# What a machine with one GPU does, in at most SECONDS_IN_ALL (480) seconds: installs, tests, measures, trains.
#   sh benchmarks/gpu.sh OUT [DATA]     OUT gets gpu.json, gpu.md, tests.txt, the runs and what they said
# DATA is a folder of speech, prepared or not; without it noise is written to OUT. SIZES="base xl" may be set.
set -eu
out=$1
data=${2:-}
in_all=${SECONDS_IN_ALL:-480}
began=$(date +%s)
left() {
    rest=$((began + in_all - $(date +%s)))
    echo $((rest > 1 ? rest : 1))
}
mkdir -p "$out"
python=${PYTHON:-python3}
# What the tests take is asked for by name: an import would find another folder's seqssl, or half of one.
if ! "$python" -c "import importlib.metadata as found
for name in ('seqssl', 'pytest', 'hypothesis', 'beartype'): found.version(name)" 2>/dev/null; then
    "$python" -m venv --system-site-packages "$out/venv"
    python=$out/venv/bin/python
    timeout "$(left)" "$python" -m pip install --quiet --editable '.[audio]' pytest hypothesis beartype
fi
timeout $((in_all / 4)) "$python" -m pytest -q -m gpu tests/training/test_gpu.py >"$out/tests.txt" 2>&1 || true
tail -n 3 "$out/tests.txt"
timeout -k 5 "$(left)" "$python" benchmarks/gpu.py "out=$out" ${data:+"data=$data"} "began=$began" \
    "seconds=$in_all" "sizes=${SIZES:-base xl}" "device=${DEVICE:-cuda}"

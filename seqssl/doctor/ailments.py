"""What each kind of bad reading means: the likely cause, and the configuration key that helps.

Texts name the objectives of a run by what they do. `{objective}` is the one that the reading is about, and
`{words}` its name as words. `{evening}` is the one that keeps codes in use; where there is none, a remedy
that turns to it is `ADD_EVENING`. `{besides}` is what else should move, as words: the accuracy of the first
objective that tells targets apart, or the loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

ADD_EVENING = (
    "objectives.diversity",
    "there is none: add it (objectives.diversity=diversity); where codes are the nearest of some entries or "
    "clusters, set quantizer.revive or targets.revive instead",
)


@dataclass(frozen=True, kw_only=True)
class Ailment:
    """What a bad reading means, and the configuration key that helps."""

    name: str
    cause: str
    remedy_key: str
    remedy: str
    severity: str = "failure"  # failure: the run teaches nothing; warning: look at it
    patience: int = 2  # bad readings in a row before it is a finding

    def about(self, names: Mapping[str, str]) -> "Ailment":
        """The same ailment, with the names of a run's objectives in its texts."""
        key, remedy = self.remedy_key, self.remedy
        if "{evening}" in key and not names["evening"]:
            key, remedy = ADD_EVENING
        elif not names["evening"]:
            remedy = remedy.partition(", or raise objectives.{evening}")[0]
        named = {**names, "evening": names["evening"] or "diversity"}
        cause, key, remedy = (text.format_map(named) for text in (self.cause, key, remedy))
        return replace(self, cause=cause, remedy_key=key, remedy=remedy)


COLLAPSE = Ailment(
    name="collapse",
    cause="the quantizer gives nearly all frames the same codes: the diversity term is off or too weak, the "
    "learning rate is too high, or the input hardly varies or is too little",
    remedy_key="objectives.{evening}.weight",
    remedy="raise it (0 is off, the paper has 0.1); if that is not enough, set quantizer_norm=batch and "
    "encoder.feature_norm=layer, lower optim.lr, and look at the input: minutes of data are few",
)
DOMINANT_CODE = Ailment(
    name="dominant-code",
    cause="one code stands for most frames: much of the input is the same (silence, padding, a resting "
    "sensor), or a collapse begins",
    remedy_key="objectives.{evening}.weight",
    remedy="raise it, or leave constant stretches out of data.source",
    severity="warning",
)
DEAD_CODES = Ailment(
    name="dead-codes",
    cause="the codebook is far larger than what the data and the learning rate let it use",
    remedy_key="quantizer.codebook_size",
    remedy="lower it (targets.num_clusters, where codes are clusters), or raise objectives.{evening}.weight",
    severity="warning",
)
EMPTY_TASK = Ailment(
    name="empty-task",
    cause="there are so few different codes that hardly a negative differs from the positive: nothing is "
    "left to discriminate, so success here means failure",
    remedy_key="objectives.{evening}.weight",
    remedy="raise it, and start again: this state is rarely left by further training",
)
TOO_GOOD = Ailment(
    name="too-good-too-early",
    cause="the answer can be had without understanding the input: masked spans are so short that neighbors "
    "give them away, or neighboring frames are nearly equal",
    remedy_key="masking.span",
    remedy="raise it, and raise objectives.{objective}.num_negatives",
    severity="warning",
)
TOO_GOOD_AHEAD = Ailment(
    name=TOO_GOOD.name,
    cause="the answer can be had without understanding the input: neighboring frames are nearly equal, so "
    "the last one tells those that come",
    remedy_key="objectives.{objective}.num_negatives",
    remedy="raise it, or predict frames that are farther off; look at whether the input moves at all",
    severity="warning",
)
AT_CHANCE = Ailment(
    name="at-chance",
    cause="the {words} task is not being learned: the learning rate does not fit the batch, or its "
    "warm-up takes most of the run",
    remedy_key="optim.lr",
    remedy="lower it by 2 to 5 times for small batches; check that optim.warmup_updates is a small part of "
    "the run; a larger data.batch_seconds or train.accumulate also helps",
)
TRIVIAL = Ailment(
    name="trivial-prediction",
    cause="{words} knows the frequencies of the codes and nothing else: the upper layers have "
    "not learned, or the codes carry no information",
    remedy_key="train.num_updates",
    remedy="raise it; if {besides} stands still, too, change optim.lr first",
    severity="warning",
)
AT_MEAN = Ailment(
    name="mean-prediction",
    cause="{words} predicts the mean of its targets and nothing else: the learning rate does not fit, or a "
    "penalty on the weights outweighs the gradient",
    remedy_key="optim.lr",
    remedy="change it by 2 to 5 times, and with optim.weight_decay take optim.name=adamw; else raise "
    "train.num_updates",
)
CONSTANT = Ailment(
    name="low-variance",
    cause="all frames look the same from the first record on: the input is constant, or the adapter "
    "scales it to nothing",
    remedy_key="data.source",
    remedy="look at a few rows of it: are they constant, silent, in another unit than the adapter expects?",
)
SHRUNKEN = Ailment(
    name="low-variance",
    cause="the network has learned to give every frame the same vector",
    remedy_key="optim.lr",
    remedy="lower it by 2 to 5 times, and raise optim.warmup_updates; a feature penalty, where there is one, "
    "may be too strong",
)
EXPLODING = Ailment(
    name="exploding-gradient",
    cause="the updates are too large for where the weights are",
    remedy_key="optim.lr",
    remedy="lower it by 2 to 5 times, or lower optim.clip_norm to the usual gradient norm",
    patience=3,
)
VANISHING = Ailment(
    name="vanishing-gradient",
    cause="no objective asks the weights to change: the codebooks have collapsed, or an objective is "
    "saturated",
    remedy_key="objectives.{evening}.weight",
    remedy="raise it, and start again with a lower optim.lr",
    patience=3,
)
DIVERGING = Ailment(
    name="diverging-loss",
    cause="training is unstable: the learning rate is too high, or a part of the data is corrupt",
    remedy_key="optim.lr",
    remedy="lower it by 2 to 5 times",
    patience=3,
)
NOT_FINITE = Ailment(
    name="not-finite",
    cause="a value left the range of numbers: bad values in the input, or too high a learning rate",
    remedy_key="data.source",
    remedy="look at the rows named; if they are sound, lower optim.lr or set train.precision=float32",
    patience=1,
)
OVERFITTING = Ailment(
    name="overfitting",
    cause="the model has learned the training rows by heart, or the held-out rows are of another kind",
    remedy_key="train.num_updates",
    remedy="lower it, choose a smaller size, or add data",
    severity="warning",
)

"""The bars of the health rules, in one table. A share of a run counts from its first update."""

WARM_UP_SHARE = 0.1  # codebooks may look bad before
WARM_UP_MAX = 5_000  # updates; a long run is not left alone for longer
EARLY_SHARE = 0.1  # before, a solved contrastive task is suspicious
ALL_FRAMES = 0.99  # the share of frames that are targets, from which on none is hidden
LATE_SHARE = 0.5  # from here on, something must have been learned
START_SHARE = 0.125  # of a codebook's entries, before the first update
START_MIN = 2.0
PERPLEXITY_SHARE = 0.05  # of a codebook's entries
PERPLEXITY_MIN = 2.0
TOP1_SHARE = 0.5
DEAD_SHARE = 0.9
SOLVED_ACCURACY = 0.95
SOLVED_LOSS = 0.05  # nats
CHANCE_FACTOR = 2.0  # times chance
CHANCE_MARGIN = 0.03  # above chance, where that is less: of ten negatives, twice chance is one in five
TRIVIAL_FACTOR = 1.1  # times the accuracy of always saying the most frequent code
MEAN_SHARE = 0.99  # of the variance: a distance that predicting the mean would nearly have
STD_MIN = 1e-3
STD_FALL = 100.0  # times below the highest value so far
GRADIENT_MIN = 1e-7
GRADIENT_FACTOR = 10.0  # times the running median
LOSS_FACTOR = 3.0  # times the running median
GAP_FACTOR = 1.5  # held-out loss over training loss
HISTORY = 50  # records in a running median
HISTORY_MIN = 5  # records before a running median means something

"""Words in the names of files and folders that are nobody's: dates, formats, sensors, activities, counts."""

import re
from collections import Counter
from collections.abc import Collection

PLACES = (
    "wrist|hip|ankle|chest|thigh|shin|waist|belt|arm|forearm|leg|foot|hand|head|back|knee|pocket|left|right|"
    "upper|lower|front|top|bottom"
)
COUNTED = (  # what files are counted by: the number behind such a word is nobody's
    "rec|recording|record|take|clip|utt|utterance|sent|sentence|track|file|img|zoom|part|seg|segment|chunk|run|"
    "trial|test|task|condition|phase|exp|experiment|visit|round|scene|gesture|activity|emotion|word|digit|class|"
    "label|session|day|week|month|year|quarter|hour"
)
MONTHS = (
    "jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec|january|february|march|april|june|july|august|september|"
    "october|november|december"
)
# Folders of regions, sessions, years and versions, or of formats, sensors, places and rates: Hip_100Hz
NO_PERSON = re.compile(
    r"dr\d+|mic\d|ch\d|v\d|session[-_ ]?\d+|(19|20)\d\d([-_]?\d\d){0,2}|"
    r"(((wav|flac|mp3|ogg|audio|clip|data|raw|recording|file)s?\d*|acc|accel(erometer|eration)?|gyr(o|oscope)?|"
    rf"mag(netometer)?|({PLACES})s?|\d+k?hz)[-_ ]?)+",
    re.IGNORECASE,
)
# A word of a file's name that counts files, or says where a sensor was or when
THING = re.compile(rf"(({PLACES}|{COUNTED}|{MONTHS})s?)+")
COUNT = re.compile(rf"(({COUNTED})s?)+")
# A word of a name such as 0.Stand or climbing_stairs; the short ones are MotionSense's
ACTIVITY = re.compile(
    r"(walk|jog|run|stand|sit|jump|climb|cycl|bik|fall|sleep|ly|lay|lie)(n?ing|ging|ting|e|s)?|"
    r"(up|down)?stairs?|dws|ups|wlk|std"
)
HOW = re.compile(  # words that an activity may have beside it
    r"up|down|to|on|off|in|out|and|the|fast|slow(ly)?|quick(ly)?|normal(ly)?|back|forward|backwards?|"
    r"left|right|side|indoors?|outdoors?|treadmill|bed|chair|floor|elevator"
)
CLASS = re.compile(  # what is said, and how or by whom: of many recordings, and nobody's name
    r"yes|no|on|off|stop|go|zero|one|two|three|four|five|six|seven|eight|nine|angry|anger|happy|happiness|"
    r"sad|sadness|neutral|calm|fear(ful)?|disgust(ed)?|surprised?|bor(ed|edom)|normal|noisy|clean|loud|quiet|"
    r"whisper(ed)?|true|false|positive|negative|healthy|patient|control|(fe)?male|speech|music|noise|silence",
    re.IGNORECASE,
)
YEAR, MONTH, DAY = r"(?:19\d|20[0-3])\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
# Dates with the marks around them: 2019, 2019-01, 01-2019, 20190131, 31.01.2019, 2019-01-31_23-59-59
DATES = re.compile(
    rf"(?:[-_. ]*(?:(?<![^\W_])(?:(?:{DAY}[-_.]{MONTH}|{MONTH}[-_.]{DAY})[-_.]|{MONTH}[-.]){YEAR}|"
    rf"(?<!\d){YEAR}(?:([-_.]?){MONTH}\1{DAY}(?:T\d{{4,6}}|[T_ -]\d\d([-_.:])\d\d\2\d\d)?|[-_.]?{MONTH})?)"
    r"(?!\d))+[-_. ]*"
)
PIECES = re.compile(r"[^\W\d_]+|\d+|[\W_]+")  # words, numbers, and marks between them
MARKS = "-_. ()"
CLASSES, EACH = 12, 5  # words that may be classes, and names with each at least


def nobody(names: Collection[str]) -> bool:
    """Whether names are those of containers, years or sensors, or most of them those of activities."""
    return all(map(NO_PERSON.fullmatch, names)) or are_activities(names)


def are_activities(names: Collection[str]) -> bool:
    """Whether most of some names say what is done."""
    return sum(map(_is_activity, names)) > 0.5 * len(names)


def _is_activity(name: str) -> bool:
    """Whether all words of a name say what is done and how: neither P01_walk nor anna_walk is one."""
    words = re.findall(r"[^\W\d_]+", name.lower())
    known = [word for word in words if ACTIVITY.fullmatch(word)]
    return bool(known) and all(word in known or HOW.fullmatch(word) for word in words)


def may_be_classes(names: Collection[str]) -> bool:
    """Whether names are words for classes, or few words without a number that each come many times."""
    counts = Counter(names)
    many = len(counts) <= CLASSES and min(counts.values()) >= EACH
    known = sum(bool(CLASS.fullmatch(name)) for name in counts)
    return known > 0.5 * len(counts) or (many and all(map(str.isalpha, counts)))


def rest(name: str) -> str:
    """A name without words for things, and without marks around what is left: 001 of utt_001."""
    if NO_PERSON.fullmatch(name):
        return ""
    words = re.findall(r"[^\W\d_]+|[\W\d_]+", name)
    return "".join(word for word in words if not THING.fullmatch(word.lower())).strip(MARKS)


def undated(name: str) -> str:
    """A name without its dates: 44025h of 44025h2019, and CRNH0203_Asheville of CRNH0203-2019-Asheville."""
    return DATES.sub("_", name).strip(MARKS)


def bare(name: str) -> str:
    """A name without dates, and without words that are nobody's and the numbers that count them.

    anna of 2019_walk_anna and of trial3_anna.
    """
    if NO_PERSON.fullmatch(name):
        return ""
    words = PIECES.findall(undated(name))
    moves = any(ACTIVITY.fullmatch(word.lower()) for word in words)
    kept: list[str] = []
    counting = False
    for word in words:
        low = word.lower()
        known = any(pattern.fullmatch(low) for pattern in (THING, NO_PERSON, ACTIVITY))
        if not (known or (moves and HOW.fullmatch(low)) or (counting and word.isdecimal())):
            kept.append(word)
        if word[0].isalnum():
            counting = COUNT.fullmatch(low) is not None
    return re.sub(r"([-_. ])[-_. ]+", r"\1", "".join(kept)).strip(MARKS)

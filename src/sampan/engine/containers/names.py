"""Names for containers that get none: an adjective and a boat."""

from __future__ import annotations

import random
from collections.abc import Callable

_ADJECTIVES = """
able brave breezy bright brisk calm candid cheerful clever coastal copper cosy crisp curious daring deft eager early
easy fair fearless fleet fond free fresh gentle gilded glad golden graceful happy hardy hearty honest hopeful humble
jaunty jolly keen kind light lively lucky merry mild misty modest mellow nimble noble patient placid plucky polite
proud quick quiet rapid ready restless robust salty serene sharp silent silver sleek smooth snug sober solid spry
stately steady stormy sturdy sunny sure swift tame tidal tidy tireless tranquil trim trusty upbeat valiant vivid
warm wandering watchful weathered willing windy wise witty zesty
"""
_BOATS = """
ark barge bark barque bateau brig brigantine canoe caravel carrack catamaran clipper cog coracle corvette cruiser
currach cutter dhow dinghy dory dugout felucca ferry frigate galleon galley gondola gunboat houseboat jolly junk
kayak keelboat ketch knarr launch lifeboat liner longboat lugger monitor outrigger packet pinnace pirogue pontoon
proa punt raft schooner scow scull shallop skiff skipjack sloop smack steamer tartane tender tjalk trawler trimaran
trireme tug umiak whaler wherry xebec yacht yawl
"""


def random_name(taken: Callable[[str], bool]) -> str:
    """One that is not taken; a number goes with it where words are running short."""
    adjectives, boats = _ADJECTIVES.split(), _BOATS.split()
    for attempt in range(100):
        name = f"{random.choice(adjectives)}_{random.choice(boats)}"
        if attempt > 10:
            name += str(random.randrange(10 ** (attempt // 10)))
        if not taken(name):
            return name
    raise AssertionError("unreachable: 10**9 numbers are not all taken")

"""Which key is which leaf, from names, structure, counts and shapes: proposals, the doubtful ones marked. Pure."""

from bridge.proposing.propose import Drop as Drop
from bridge.proposing.propose import Pair as Pair
from bridge.proposing.propose import Proposal as Proposal
from bridge.proposing.propose import propose as propose

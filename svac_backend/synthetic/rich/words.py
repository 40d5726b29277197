"""The wordings of everything that can be said: a table.

`key = wording / wording / ...`; a line that begins with blanks goes on with the line before. A wording that begins
with `*` is kept from training. `{n}` is the noun (without it, the noun comes first), `{b}` the noun without its
adjectives, `{c}` its colour, `{x}` and `{y}` are other things with their article, and `a|b` stands for a in the
singular and b in the plural. `noun` and `color` are nouns of which nothing else is said.
"""

from __future__ import annotations

_TABLE = """
move left = moving left / that moves|move left / going left / that goes|go left / that is|are moving left /
    heading left / *travelling left / *that heads|head left / moving to the left /
    that moves|move to the left / *going towards the left
enter left = that comes|come in from the left / entering from the left / that enters|enter from the left /
    *that appears|appear from the left side
move right = moving right / that moves|move right / going right / that goes|go right /
    that is|are moving right / heading right / *travelling right / *that heads|head right /
    moving to the right / that moves|move to the right / *going towards the right
enter right = that comes|come in from the right / entering from the right / that enters|enter from the right /
    *that appears|appear from the right side
move up = moving up / that moves|move up / going up / that goes|go up / that is|are moving up / heading up /
    *travelling up / *that heads|head up / that rises|rise / moving upwards / rising / *climbing /
    *going to the top
enter up = that comes|come in from the top / entering from the top / that enters|enter from the top /
    *that appears|appear from the top side
move down = moving down / that moves|move down / going down / that goes|go down / that is|are moving down /
    heading down / *travelling down / *that heads|head down / that sinks|sink / moving downwards /
    coming down / *falling / *going to the bottom
enter down = that comes|come in from the bottom / entering from the bottom /
    that enters|enter from the bottom / *that appears|appear from the bottom side
move up left = moving diagonally to the top left / that moves|move towards the top left / going up and left /
    moving up and to the left / *heading for the top left corner
at top left = in the top left / in the top left corner / at the top left /
    *that stays|stay in the top left corner
move up right = moving diagonally to the top right / that moves|move towards the top right /
    going up and right / moving up and to the right / *heading for the top right corner
at top right = in the top right / in the top right corner / at the top right /
    *that stays|stay in the top right corner
move down left = moving diagonally to the bottom left / that moves|move towards the bottom left /
    going down and left / moving down and to the left / *heading for the bottom left corner
at bottom left = in the bottom left / in the bottom left corner / at the bottom left /
    *that stays|stay in the bottom left corner
move down right = moving diagonally to the bottom right / that moves|move towards the bottom right /
    going down and right / moving down and to the right / *heading for the bottom right corner
at bottom right = in the bottom right / in the bottom right corner / at the bottom right /
    *that stays|stay in the bottom right corner
at left = on the left / on the left side / at the left / that is|are on the left /
    *in the left half of the picture
at right = on the right / on the right side / at the right / that is|are on the right /
    *in the right half of the picture
at top = at the top / near the top / that is|are at the top / *in the top half of the picture
at bottom = at the bottom / near the bottom / that is|are at the bottom / *in the bottom half of the picture
begin at left = that starts|start on the left / that is|are on the left at first /
    that begins|begin on the left / *initially on the left
end at left = that ends|end up on the left / that is|are on the left at the end /
    that finishes|finish on the left / *finally on the left
begin at right = that starts|start on the right / that is|are on the right at first /
    that begins|begin on the right / *initially on the right
end at right = that ends|end up on the right / that is|are on the right at the end /
    that finishes|finish on the right / *finally on the right
begin at top = that starts|start at the top / that is|are at the top at first / that begins|begin at the top /
    *initially at the top
end at top = that ends|end up at the top / that is|are at the top at the end /
    that finishes|finish at the top / *finally at the top
begin at bottom = that starts|start at the bottom / that is|are at the bottom at first /
    that begins|begin at the bottom / *initially at the bottom
end at bottom = that ends|end up at the bottom / that is|are at the bottom at the end /
    that finishes|finish at the bottom / *finally at the bottom
first to move = that is the first to move / that starts moving first /
    that starts first / *that is the first one to get going
first to stop = that stops first / that is the first to stop / that comes to rest first /
    *that is the first one to stand still
first to enter = that enters first / that appears first / that is the first to come in / that comes in first /
    *that is the first one to show up
first to leave = that leaves first / that disappears first / that is the first to go out /
    *that is the first one to vanish
last to move = that is the last to move / that starts moving last / that starts last /
    *that is the last one to get going
last to stop = that stops last / that is the last to stop / that comes to rest last /
    *that is the last one to stand still
last to enter = that enters last / that appears last / that is the last to come in / that comes in last /
    *that is the last one to show up
last to leave = that leaves last / that disappears last / that is the last to go out /
    *that is the last one to vanish
still = that stays|stay still / that does|do not move / standing still / that is|are not moving /
    still {n} / *motionless {n} / *that remains|remain in one place
moving = that moves|move / moving {n} / that is|are moving / in motion / *that is|are on the move
circle = moving in a circle / that moves|move in circles / going around in a circle / circling /
    *that goes|go round and round
turn round = that turns|turn around / that turns|turn back / that goes|go one way and comes|come back /
    turning back / *that reverses|reverse its|their direction
back and forth = moving back and forth / that goes|go back and forth / going to and fro /
    *that keeps|keep turning back
change direction = that changes|change direction / changing direction /
    *that does|do not go straight
bounce = that bounces|bounce / bouncing off the edge / that bounces|bounce off the edge / bouncing /
    *that rebounds|rebound from the border
grow = that grows|grow / growing / that gets|get bigger / getting larger / that becomes|become larger /
    *that is|are increasing in size
shrink = that shrinks|shrink / shrinking / that gets|get smaller / getting smaller /
    that becomes|become smaller / *that is|are decreasing in size
spin = that spins|spin / spinning / spinning {n} / that rotates|rotate / turning around itself|themselves /
    *that whirls|whirl around
start = that starts|start moving / that begins|begin to move / that stands|stand still and then moves|move /
    starting to move / *that sets|set off after a while
stop = that stops|stop / that comes|come to a stop / that moves|move and then stops|stop /
    that stops|stop moving / *that comes|come to a halt
enter = that comes|come in / entering / that enters|enter the picture / that appears|appear later /
    *that comes|come into view
leave = that leaves|leave / leaving the picture / that goes|go out of the picture /
    that disappears|disappear / *that goes|go out of view
whole time = that is|are there the whole time / that stays|stay in the picture /
    that can be seen from start to end / *that never leaves|leave the picture
at middle = in the middle / in the center / at the center / *in the middle of the picture
large = large {n} / big {n} / that is|are large / *huge {n}
small = small {n} / little {n} / that is|are small / *tiny {n}
largest = largest {n} / biggest {n} / that is the largest / *{n} of the largest size
smallest = smallest {n} / tiniest {n} / that is the smallest / *{n} of the smallest size
leftmost = leftmost {n} / {n} farthest to the left / *{n} closest to the left edge
rightmost = rightmost {n} / {n} farthest to the right / *{n} closest to the right edge
highest = highest {n} / topmost {n} / {n} nearest to the top / *uppermost {n}
lowest = lowest {n} / {n} nearest to the bottom / *bottommost {n}
fastest = fastest {n} / that moves fastest / moving the fastest / quickest {n} / *speediest {n}
slowest = slowest {n} / that moves slowest / moving the slowest / *{n} with the lowest speed
moves farthest = that moves the farthest / that goes the longest way / *that covers the greatest distance
left of = to the left of {x} / left of {x} / that is|are to the left of {x} / *on {x}'s left side
right of = to the right of {x} / right of {x} / that is|are to the right of {x} / *on {x}'s right side
above = above {x} / that is|are above {x} / *higher up than {x}
below = below {x} / that is|are below {x} / *lower down than {x}
in front of = in front of {x} / covering {x} / that hides|hide {x} in part / *that is|are before {x}
behind = behind {x} / partly hidden by {x} / that is|are behind {x} / *that {x} covers in part
between = between {x} and {y} / that is|are between {x} and {y} / *with {x} and {y} on either side
nearest = nearest to {x} / closest to {x} / that is nearest to {x} / *at the shortest distance from {x}
farthest from = farthest from {x} / that is farthest from {x} / *most distant from {x}
larger than = larger than {x} / bigger than {x} / that is|are larger than {x} / *exceeding {x} in size
smaller than = smaller than {x} / that is|are smaller than {x} / *not as large as {x}
faster than = faster than {x} / that moves|move faster than {x} / moving faster than {x} /
    *that outpaces|outpace {x}
slower than = slower than {x} / that moves|move slower than {x} / moving slower than {x} /
    *that cannot keep up with {x}
follow = following {x} / that follows|follow {x} / going after {x} / moving along behind {x} /
    *that chases|chase {x}
followed by = followed by {x} / that is|are followed by {x} / that {x} follows / leading {x} /
    *with {x} coming behind
pass = passing {x} / that passes|pass {x} / going past {x} / *that moves|move by {x}
approach = moving towards {x} / that approaches|approach {x} / coming closer to {x} / that goes|go to {x} /
    *drawing near {x}
away = moving away from {x} / that goes|go away from {x} / that leaves|leave {x} behind /
    *getting farther from {x}
noun = {n} / {n} / {n} in the video / *{n} shown here
color = {n} / {n} / {b} that is|are {c} / {n} in the video / *{b} of {c} color
"""


def _read() -> dict[str, tuple[str, ...]]:
    found = {}
    for line in _TABLE.strip().replace("\n    ", " ").splitlines():
        key, _, said = line.partition(" = ")
        found[key] = tuple(wording.strip() for wording in said.split(" / "))
    return found


WORDINGS: dict[str, tuple[str, ...]] = _read()

"""Training `svac-tiny`, the model that ships inside the package, from generated videos alone.

Stages, each of which starts from the last one's weights (what did not work is in docs/embedded-model.md):

    masks     SAM-2's part learns to draw what an oracle prompt names: colour, shape and place, dropped at random
    looking   the vision tower learns what stands where
    words     the language model learns what sentences say, without pictures
    language  the language model learns to turn a sentence into that oracle prompt, one per clip
    joint     all of it together, on the masks themselves
"""

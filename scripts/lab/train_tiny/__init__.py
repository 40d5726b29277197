"""Training `svac-tiny`, the model that ships inside the package, from generated videos alone.

Stages, each of which starts from the last one's weights (what did not work is in docs/embedded-model.md):

    masks     SAM-2's part learns to draw what an oracle prompt names: colour, name, texture and places
    looking   the vision tower learns what stands where
    words     the language model learns what sentences say of a thing, without pictures
    binding   it finds what simple sentences mean, on one clip
    language  it turns all sentences into that oracle prompt, one per clip
    joint     language model and mask decoder together, on the masks themselves
    memory    what carries corrections from frame to frame
"""

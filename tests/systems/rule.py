"""What rules of parameters that know nothing of each other are made of."""


def each(update):
    """A step whose parameters know nothing of each other."""

    def step(params, grads, states, t):
        for w, g, s in zip(params, grads, states, strict=True):
            update(w, g, s, t)

    return step

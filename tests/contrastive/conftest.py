"""What the tests of losses share."""

import numpy as np
import pytest


@pytest.fixture
def numerical_gradient():
    """Of a function of an array, by central differences."""

    def gradient_of(f, x, step=1e-6):
        gradient = np.zeros_like(x)
        for index in np.ndindex(*x.shape):
            up, down = x.copy(), x.copy()
            up[index] += step
            down[index] -= step
            gradient[index] = (f(up) - f(down)) / (2 * step)
        return gradient

    return gradient_of

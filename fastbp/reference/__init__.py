"""The reference: the equations of backpropagation in plain NumPy, the textbook and the oracle for the compiled engine.

`functions` holds the activations and losses, `component` the equations for one sample at a time (the specification),
`matrix` the same for a mini-batch at once, `training` the optimizers and the loop, `epochs` schedules, early stopping
and L-BFGS. Nothing here is compiled, and nothing of it is needed to use fastbp: it is there to be read and to be
compared with.

Examples
--------
>>> import numpy as np
>>> from fastbp.reference import component, matrix
>>> weights, biases = [np.array([[1.0, -1.0]])], [np.array([0.5])]
>>> network = weights, biases, ("sigmoid",), "cross_entropy"
>>> X, Y = np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[0.0], [1.0]])
>>> np.allclose(component.gradients(*network, X, Y)[0], matrix.gradients(*network, X, Y)[0])
True
"""

from fastbp.reference import component, epochs, matrix
from fastbp.reference.functions import ACTIVATIONS, LOSSES, Activation, Loss, one_hot
from fastbp.reference.training import UPDATES, Optimizer, Update, minibatches, train

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "UPDATES",
    "Activation",
    "Loss",
    "Optimizer",
    "Update",
    "component",
    "epochs",
    "matrix",
    "minibatches",
    "one_hot",
    "train",
]

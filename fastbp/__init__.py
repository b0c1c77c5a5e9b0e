"""fastbp: dense neural networks trained by backpropagation on a CPU, from NumPy arrays.

Importing it compiles nothing; the first training or prediction does, once per machine.
"""

from fastbp import datasets, schedules
from fastbp.callbacks import Callback, EarlyStopping, ProgressBar
from fastbp.engine.cores import get_num_threads, set_num_threads
from fastbp.history import History, TrainingState
from fastbp.network import Network
from fastbp.optimizers import LBFGS, SGD, Adam

__version__ = "0.1.0"
__all__ = [
    "LBFGS",
    "SGD",
    "Adam",
    "Callback",
    "EarlyStopping",
    "History",
    "Network",
    "ProgressBar",
    "TrainingState",
    "datasets",
    "get_num_threads",
    "schedules",
    "set_num_threads",
]

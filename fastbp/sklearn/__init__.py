"""scikit-learn's multilayer perceptrons, drop-in: `MLPClassifier` and `MLPRegressor`.

``from fastbp.sklearn import MLPClassifier`` replaces ``from sklearn.neural_network import MLPClassifier``, and nothing
else changes but the time it takes. Parameters, methods, fitted attributes, warnings and random draws are those of
scikit-learn 1.9, whichever version from 1.6 on is installed; what differs on purpose stands in the classes' notes.
``pip install 'fastbp[sklearn]'`` brings scikit-learn.
"""

try:
    from sklearn.utils.validation import validate_data as _since_1_6  # noqa: F401
except ImportError as error:
    raise ImportError(
        "fastbp.sklearn needs scikit-learn 1.6 or later: install it by  pip install 'fastbp[sklearn]'"
    ) from error

from fastbp.sklearn.classifier import MLPClassifier
from fastbp.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]

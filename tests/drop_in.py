"""A pytest plugin that puts fastbp's estimators in the place of scikit-learn's before a test module imports them.

PYTHONPATH=tests python -m pytest -p drop_in --pyargs sklearn.neural_network.tests.test_mlp
"""

from __future__ import annotations

from sklearn import neural_network

import fastbp.sklearn

neural_network.MLPClassifier = fastbp.sklearn.MLPClassifier
neural_network.MLPRegressor = fastbp.sklearn.MLPRegressor

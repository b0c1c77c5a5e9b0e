"""nielsen: the programs of Michael Nielsen's *Neural Networks and Deep Learning*, on fastbp's engine.

`mnist_loader`, `network` and `network2` stand in for the book's modules of these names: the same classes, arguments,
attributes, prints, random draws and files, in float64, many times as fast. What a subclass or an instance overrides is
honoured: the engine works where it computes what the book's code would, NumPy does everywhere else.

Interface and arithmetic are those of https://github.com/mnielsen/neural-networks-and-deep-learning (MIT licence,
Copyright (c) 2012-2022 Michael Nielsen; LICENSE-nielsen.txt).

Examples
--------
>>> from fastbp.nielsen import network
>>> net = network.Network([784, 30, 10])
>>> [w.shape for w in net.weights], [b.shape for b in net.biases]
([(30, 784), (10, 30)], [(30, 1), (10, 1)])
"""

from . import mnist_loader, network, network2

__all__ = ["mnist_loader", "network", "network2"]

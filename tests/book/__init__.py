"""The book's programs as they are, in Python 3, one sample after the other: the oracle of fastbp.nielsen.

They keep the arithmetic of src/network.py and src/network2.py of Michael Nielsen's *Neural Networks and Deep Learning*
(https://github.com/mnielsen/neural-networks-and-deep-learning) operation by operation, and their prints and random
draws; licence in ../data/nielsen_curves/LICENSE.txt.
"""

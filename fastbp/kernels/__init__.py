"""Everything that is compiled: the arithmetic of layers, losses and updates. The only folder that imports Numba.

The equations, and the notation that all of the code keeps to::

    z_j = sum_k w_jk a_k + b_j          a_j = sigma(z_j)                      forward.py
    delta_j = dC/da_j sigma'(z_j)                                             BP1, losses.py, output.py
    delta_j = sigma'(z_j) sum_k w_kj delta_k                                  BP2, backward.py
    dC/db_j = delta_j                                                         BP3, gradients.py
    dC/dw_jk = a_k delta_j                                                    BP4, gradients.py
    all of these with the samples in the lanes, for narrow networks           lanes.py, narrow.py
    softmax or sigmoid with cross-entropy, identity with squared error, exp with poisson: delta = a - y

    l   a weight layer, from 0          L   how many there are
    j   a neuron of layer l             k   a neuron of the neighbouring layer
    i   a sample                        m   samples in a mini-batch
    w   weights[l], w[j, k] from neuron k to neuron j: (n_out, n_in)
    b   biases[l]: (n_out,)             C   cost of one sample; the cost of a mini-batch is the mean
    z, a, delta  weighted input, activation and error of a neuron
    x, y         input and target of a sample
    g            a gradient of the cost of a mini-batch
    eta, mu      learning rate, momentum

M. Nielsen, *Neural Networks and Deep Learning* (2015), chapter 2.
"""

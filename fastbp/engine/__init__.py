"""The door between Python and the kernels: packed parameters, buffers, threads, and calls on kernels."""
